"""One damaged shard among good ones: every command that reads labels goes on without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cliptex.cli.app import main
from cliptex.labels.codecs import png_bytes
from cliptex.shards.write import ShardWriter


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of three pictures, the second cut short; keys that are unique."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    with ShardWriter(folder, prefix="x", samples_per_shard=3) as writer:
        for number in range(6):
            pixels = np.full((8, 8, 3), 30 * number, np.uint8)
            writer.add(f"{number}", png_bytes(pixels), "png", "a picture")
    tar = folder / "x-00001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    return folder


def test_reading_commands(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "source", tmp_path / "labels"
    source.mkdir()
    for number in range(6):
        (source / f"{number}.png").write_bytes(png_bytes(np.zeros((4, 4), np.uint8)))
    (tmp_path / "names").write_text("nothing\n")

    def run(*words: str, code: int = 0) -> str:
        try:
            ended: object = main(["label", *words, "--data", str(data)])
        except SystemExit as stop:
            ended = stop.code
        assert ended == code
        return capsys.readouterr().out

    form = ["--form", "classes", "--classes", str(tmp_path / "names")]
    names = ["--name", "mine", "--origin", "by hand"]
    adopted = run("adopt", "--source", str(source), "--out", str(out), *form, *names)
    left_out = "1 damaged shards are left out: x-00001.tar ("
    assert left_out in adopted and "3 of 3 images have a label" in adopted
    told = run("status", str(out))
    assert "mine: 3 of 3 images" in told and "damaged shard x-00001.tar: " in told
    assert left_out in run("view", str(out), "--out", str(tmp_path / "page.html"))
    found = run("verify", str(out / "mine"), code=1)
    assert "x-00001.tar: damaged: " in found and "1 problems" in found
    plan = run("plan", "--expert", "playroom:depth", "--count", "2")
    assert left_out in plan and "images" in plan
    depth = ["--expert", "playroom:depth", "--device", "cpu"]
    again = run("retry", str(out), *depth, code=2)
    assert left_out in again
