from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cliptex.cli import app, main, runs
from cliptex.cli.train import configuration
from cliptex.console import TooManyFailures
from cliptex.probes import FastConfig
from cliptex.results import Result, append_results


def run_child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_help_lists_the_commands_without_heavy_imports():
    code = """
import sys
sys.argv = ["cliptex", "--help"]
try:
    from cliptex.cli import main
    main()
finally:
    heavy = {"torch", "numpy", "scipy", "matplotlib", "pydantic", "PIL"} & sys.modules.keys()
    print("heavy:", sorted(heavy))
"""
    done = run_child(code)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    for name in app.COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_unknown_options_exit_with_2(capsys):
    assert main(["report", "--nonsense", "1"]) == 2
    assert "--nonsense is no option of `cliptex report`" in capsys.readouterr().err


def test_user_errors_are_one_line_and_exit_with_2(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert "results.jsonl" in errors


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("two\n  lines"), 2, "error: two; lines\n"),
        (OSError(28, "No space", "x.tar"), 2, "error: x.tar: no space is left on the disk; "),
        (KeyboardInterrupt(), 130, "interrupted: what is done is kept: run the same command again"),
        (ValueError(), 2, "error: ValueError\n"),
        (TooManyFailures("6 of 10 images"), 3, "error: 6 of 10 images\n"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, text):
    def fail(out: Path = Path("x")) -> None:
        raise error

    monkeypatch.setitem(app.COMMANDS, "demo", fail)
    assert main(["demo"]) == code
    assert text in capsys.readouterr().err


def test_interrupted__only_what_goes_on_says_so(monkeypatch, capsys):
    def fail(state: Path | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(app.COMMANDS, "probe", fail)
    assert main(["probe"]) == main(["probe", "--state", "x"]) == 130
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"interrupted: {app.KEPT}" and second == f"interrupted: {app.GO_ON}"


def test_a_configuration_that_does_not_fit_names_its_fields(monkeypatch, capsys):
    def fail() -> None:
        FastConfig(epochs=0, learning_rates=(-1.0,))

    monkeypatch.setitem(app.COMMANDS, "demo", fail)
    assert main(["demo"]) == 2
    errors = capsys.readouterr().err
    assert errors == "error: `epochs` 0: Input should be greater than 0\n"


def test_notes_of_a_stage_reach_the_line(monkeypatch, capsys):
    def fail(out: Path = Path("x")) -> None:
        error = ValueError("no such expert")
        error.add_note("in stage 'label' (folder x/label); run again")
        raise error

    monkeypatch.setitem(app.COMMANDS, "demo", fail)
    assert main(["demo"]) == 2
    errors = capsys.readouterr().err
    assert errors == "error: no such expert; in stage 'label' (folder x/label); run again\n"
    monkeypatch.setenv("CLIPTEX_DEBUG", "1")
    assert main(["demo"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_bugs_keep_their_traceback(monkeypatch):
    def fail(out: Path = Path("x")) -> None:
        raise KeyError("bug")

    monkeypatch.setitem(app.COMMANDS, "demo", fail)
    with pytest.raises(KeyError):
        main(["demo"])


def test_interrupt_of_a_real_process_exits_with_130():
    code = """
import os, signal
from cliptex.cli import app, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells ignore it
def wait(out: str = "x") -> None:
    os.kill(os.getpid(), signal.SIGINT)
app.COMMANDS["demo"] = wait
raise SystemExit(main(["demo"]))
"""
    done = run_child(code)
    assert done.returncode == 130
    assert done.stderr.startswith("interrupted: ") and "Traceback" not in done.stderr


def test_report_writes_the_page_and_prints_where(tmp_path, capsys):
    base = {"task": "depth", "dataset": "d", "metric": "absrel", "better": "lower", "n": 9}
    append_results(tmp_path / "results.jsonl", [Result(model="clip", value=0.5, **base)])
    assert main(["report", str(tmp_path), "--title", "A title"]) == 0
    page = tmp_path / "report.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert "A title" in page.read_text()
    assert main(["report", "--title", "none"]) == 2


def test_demo_passes_its_options_on(monkeypatch, tmp_path, capsys):
    calls = []
    demo = ModuleType("cliptex.pipeline.demo")  # the real one takes seconds to import
    monkeypatch.setattr(demo, "run_demo", lambda *arguments: calls.append(arguments), raising=False)
    monkeypatch.setitem(sys.modules, demo.__name__, demo)
    options = ["--preset", "quick", "--controls", "--seed", "0", "1", "2", "--jobs", "2"]
    assert main(["demo", "--out", str(tmp_path), *options]) == 0
    assert calls == [(tmp_path, "quick", True, (0, 1, 2), 2)]
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert runs.demo.function.__defaults__ == (Path("runs/demo"), "full", False, (0,), 1)


def test_train_overrides_are_typed(tmp_path):
    arguments = ["--out", str(tmp_path), "--data", "d", "--labels", "l", "--lr", "1e-5"]
    arguments += ["--resolution", "64", "64", "96", "32", "--dense.width", "8"]
    arguments += ["--loss-weights.depth", "0.5", "--epochs", "2"]
    config, chosen = configuration("playroom", arguments)
    assert (chosen.out, chosen.device, chosen.dry_run) == (tmp_path, "auto", False)
    assert (config.data, config.labels) == (Path("d"), Path("l"))
    assert config.resolution == ((64, 64), (96, 32))
    assert (config.lr, config.dense.width) == (1e-5, 8)
    assert config.loss_weights["depth"] == 0.5 and config.loss_weights["clip"] == 1.0
    assert (config.steps, config.epochs) == (None, 2)


def test_train_from_yaml(tmp_path):
    from cliptex.training.config import dump_config

    config, *_ = configuration("playroom", ["--out", "x", "--data", "d"])
    dump_config(config, tmp_path / "config.yaml")
    again, *_ = configuration(str(tmp_path / "config.yaml"), ["--out", "y", "--seed", "3"])
    assert again == config.model_copy(update={"seed": 3})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonesuch", "--out", "x"], "recipe 'nonesuch' is unknown; there are"),
        (["playroom", "--out", "x", "--data", "d", "--lr", "-1"], "lr"),
        (["absent.yaml", "--out", "x"], "absent.yaml"),
    ],
)
def test_train_errors_are_one_line(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
