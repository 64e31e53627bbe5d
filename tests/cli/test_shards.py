"""What is odd in shards is said by every command that opens them, not by `shards check` alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cliptex.cli.app import main
from cliptex.labels.codecs import png_bytes
from cliptex.models.config import ClipConfig, ModelSpec
from cliptex.training.config import TrainConfig, dump_config

Said = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def picture(number: int) -> bytes:
    return png_bytes(np.full((40, 40, 3), 20 * number, np.uint8))


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., int]:
    """train(data, ...) -> the exit status of a dry run on `data`."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    spec = ModelSpec(config=ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=text))

    def run(data: Path, *options: str) -> int:
        config = TrainConfig(
            model=spec, data=data, steps=3, warmup_steps=1, batch_size=1, workers=0
        )
        dump_config(config, tmp_path / "given.yaml")
        words = ["--out", str(tmp_path / "run"), "--resolution", "32", "32", "--dry-run"]
        return main(["train", str(tmp_path / "given.yaml"), *words, *options])

    return run


def label(data: Path) -> int:
    words = ["--out", str(data.parent / "labels"), "--device", "cpu"]
    return main(["label", "run", "--data", str(data), "--expert", "sobel-edges", *words])


def test_half_a_download_is_named_by_every_command(
    tmp_path: Path, said: Said, train: Callable[..., int]
) -> None:
    members = {
        f"{i}.{e}": picture(i) if e == "png" else b"x" for i in range(6) for e in ("png", "txt")
    }
    tar = write_tar(tmp_path / "data/00000.tar", members)
    with tarfile.open(tar) as whole:
        second = whole.getmembers()[2].offset
    tar.write_bytes(tar.read_bytes()[:second])  # 1 of 6 samples, and no end mark
    (tmp_path / "data/00000_stats.json").write_text('{"successes": 6}')
    for command in (label, train):
        assert command(tmp_path / "data") == 0
        lines = [line for line in said() if "00000.tar" in line]
        assert any("without an end-of-archive mark" in line for line in lines)
        assert any("counts 6, the tar holds 1" in line for line in lines)
    assert main(["shards", "check", str(tmp_path / "data")]) == 2


@pytest.mark.parametrize("names", [("22.05.png", "22.05.txt"), ("s0.input.png", "s0.outputs.txt")])
def test_members_that_form_no_sample_fail_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], train: Callable[..., int], names: tuple
) -> None:
    write_tar(tmp_path / "data/a.tar", dict(zip(names, (picture(1), b"x"), strict=True)))
    for command in (label, train, lambda data: main(["shards", "check", str(data)])):
        assert command(tmp_path / "data") == 2
        told = capsys.readouterr()
        assert f"such as {names[0]!r}" in told.err + told.out
        assert "ends at the first dot" in told.err + told.out


def test_captions_of_a_named_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: Said, train: Callable[..., int]
) -> None:
    content = [{"alt": "a square"}, {"alt": ["one", "two"]}, {"title": "no alt"}]
    members = {f"{i}.png": picture(i) for i in range(3)}
    members |= {f"{i}.json": json.dumps(c).encode() for i, c in enumerate(content)}
    data = write_tar(tmp_path / "data/a.tar", members).parent
    assert main(["shards", "check", str(data)]) == 2  # no field that is known
    assert "3  missing text" in capsys.readouterr().out
    assert main(["shards", "check", str(data), "--caption-key", "alt"]) == 2
    told = capsys.readouterr().out
    assert "3 captions" in told and "2  with captions in KEY.json" in told
    assert "2.json: no field 'alt'; it has 'title'" in told
    assert train(data, "--caption-key", "alt", "--batch-size", "3") == 0
    assert any("2.json: no field 'alt'" in line and "next readable" in line for line in said())
    assert train(data, "--caption-key", "nonsense") == 2
    assert "none of the 3 images can be read" in capsys.readouterr().err
