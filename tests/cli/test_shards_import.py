"""`cliptex shards import` and `check`: options, exit status, and what is left on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cliptex.cli.app import TOO_MANY_FAILURES, USER_ERROR, main


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Four pictures and five rows, one of which is cut."""
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"{i}.jpg")
    rows = [f"{i}.jpg\t{i}\tred, number {i}" for i in range(4)]
    (tmp_path / "c.csv").write_text("\n".join(["file name\tn\twords", *rows, "5.jpg\t5"]))
    return tmp_path / "c.csv"


def run(captions: Path, *options: str, source: str = "folder") -> int:
    out = str(captions.parent / "out")
    return main(["shards", "import", source, str(captions), "--out", out, *options])


def test_a_table_with_its_options(captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(captions) == USER_ERROR
    assert "no column any of caption, captions" in capsys.readouterr().err
    options = ["--caption-column", "words", "--separator", "tab", "--quoting", "none"]
    assert run(captions, *options) == USER_ERROR
    printed = capsys.readouterr()
    assert f"error: {captions}: line 6: 2 fields, where the header has 3; put" in printed.err
    assert printed.out == "" and not (captions.parent / "out").exists()
    for _ in range(2):  # the second finds the shard
        assert run(captions, *options, "--skip-bad-rows") == TOO_MANY_FAILURES
        printed = capsys.readouterr()
        assert "4 images with 4 captions in 1 shards; 1 of 5 left out" in printed.out
        assert "error: 1 of 5 inputs were left out (20.0 %)" in printed.err
        assert f"left out or damaged: {captions}: line 6: 2 fields" in printed.out
    assert run(captions, *options, "--skip-bad-rows", "--max-failures", "0.2") == 0
    printed = capsys.readouterr().out
    assert "separated by tab, quotes are text, images in column 'file name'" in printed


def test_options_that_are_refused_write_nothing(
    captions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(captions, "--max-failures", "5") == USER_ERROR
    assert "max_failures 5.0: not a share" in capsys.readouterr().err
    assert run(captions, "--caption-key", "x") == USER_ERROR
    assert (
        "--caption-key x: applies to the source img2dataset, not to folder"
        in capsys.readouterr().err
    )
    assert run(captions, "--skip-bad-rows", source="coco") == USER_ERROR
    assert run(captions, "--images", str(captions.parent), source="img2dataset") == USER_ERROR
    assert run(captions, "--split", "val", source="coco") == USER_ERROR
    assert not (captions.parent / "out").exists()


def test_an_import_of_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog"}]}
    (tmp_path / "d.json").write_text(json.dumps({"images": [entry]}))
    assert run(tmp_path / "d.json", source="karpathy") == USER_ERROR
    said = capsys.readouterr().err
    assert "d.json: none of its 1 images can be imported, beginning with a.jpg: missing" in said
    assert not (tmp_path / "out").exists()


def test_check_of_shards_without_a_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(10_240))  # an empty tar
    assert main(["shards", "check", str(tmp_path)]) == USER_ERROR
    assert f"error: {tmp_path}: no sample" in capsys.readouterr().err
