"""Options of commands that run under torchrun, which shortens and guesses its own options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from cliptex.cli import main

COMMANDS = {
    "train": ["train", "paper"],
    "train pretrain": ["train", "playroom_pretrain"],
    "train photos": ["train", "photos"],
    "probe": ["probe"],
    "label run": ["label", "run"],
}


def options_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main([*command, "--help-all"]) == 0
    shown = re.findall(r"(?<![\w-])--[a-z][\w.-]*", capsys.readouterr().out)
    return sorted({*shown, *(option.replace("-", "_").replace("__", "--", 1) for option in shown)})


@pytest.mark.parametrize("name", COMMANDS)
def test_torchrun_passes_every_option_on(name: str, capsys) -> None:
    options = options_of(COMMANDS[name], capsys)
    assert len(options) > 15
    for option in options:
        ours = [*COMMANDS[name], option, "value"]
        parsed = get_args_parser().parse_args(["--nproc-per-node", "2", "-m", "cliptex", *ours])
        assert (parsed.training_script, parsed.training_script_args) == ("cliptex", ours)


def test_the_test_sees_an_option_that_torchrun_takes(capsys) -> None:
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["-m", "cliptex", "train", "paper", "--start", "x"])
    assert "--start-method" in capsys.readouterr().err


@pytest.mark.parametrize("old", [["--start", "nowhere"], ["--start=nowhere"]])
def test_the_old_name_of_start_from_works_and_says_so(old, tmp_path: Path, capsys) -> None:
    out = ["--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["train", "paper", "--tower", "vit-h16", *old, *out]) == 2
    notice, error = capsys.readouterr().err.splitlines()
    assert "--start is called --start-from now" in notice
    assert "no *.tar in this folder" in error  # of what comes next
