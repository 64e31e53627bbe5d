"""The commands print what they found and fail where something is wrong."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import experts, label, label_checks
from cliptex.cli.app import USER_ERROR, main
from cliptex.experts.protocol import Expert, Placement
from cliptex.shards.write import ShardWriter


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "data", prefix="x") as writer:
        for number in range(2):
            writer.add(f"key{number}", png(np.zeros((4, 6, 3), np.uint8)), "png", "")
    return tmp_path / "data"


@pytest.fixture
def adopted(capsys, data: Path, tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        (source / f"key{number}.png").write_bytes(png(np.full((4, 6), number, np.uint8)))
    names = tmp_path / "names.txt"
    names.write_text("background\ncat\n")
    label.adopt(data, source, tmp_path / "labels", "mine", "hand", "classes", classes=names)
    return tmp_path / "labels" / "mine"


def test_adopt_verify_and_score(data: Path, adopted: Path, tmp_path: Path, capsys) -> None:
    assert "2 of 2 images have a label" in capsys.readouterr().out
    label_checks.verify(adopted, data)
    assert "nothing is wrong" in capsys.readouterr().out
    voc = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("key0\nkey1\n")
    (voc / "labels.txt").write_text("background\ncat\n")
    for number in range(2):
        Image.new("RGB", (6, 4)).save(voc / f"JPEGImages/key{number}.jpg")
        truth = np.full((4, 6), number, np.uint8)
        (voc / f"SegmentationClass/key{number}.png").write_bytes(png(truth))
    out = tmp_path / "results.jsonl"
    label_checks.score(voc, "voc", labels=adopted, out=out)
    assert "miou: 100" in capsys.readouterr().out and out.read_text().count("\n") == 3
    with pytest.raises(ValueError, match="either --expert or --labels"):
        label_checks.score(voc, "voc")


def test_verify__exits_with_1(data: Path, adopted: Path, capsys) -> None:
    tar = adopted / "x-00000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    with pytest.raises(SystemExit) as stop:
        label_checks.verify(adopted, data)
    assert stop.value.code == 1 and str(tar) in capsys.readouterr().out


def test_adopt__says_what_it_needs(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--scale and --unit"):
        label.adopt(data, tmp_path, tmp_path / "labels", "mine", "hand", "depth")


def test_experts(tmp_path: Path, capsys) -> None:
    experts.list_()
    assert "playroom:depth" in capsys.readouterr().out.splitlines()
    with pytest.raises(ValueError, match="at least two"):
        experts.check("playroom:depth", tmp_path)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 48, 3)).astype(np.uint8)
        (tmp_path / f"{number}.png").write_bytes(png(pixels))
    experts.check("playroom:normals", tmp_path)
    out = capsys.readouterr().out
    assert "ok    axes: mean cosine" in out and "FAIL" not in out


def test_plan(data: Path, capsys) -> None:
    label.plan(data, ("playroom:depth", "playroom:normals"), count=2)
    printed = capsys.readouterr().out
    assert "bytes per image" in printed and "all 2 images, from 2 drawn" in printed
    for codec in ("png-scalar-10 (used)", "png-scalar-16", "png-normal-oct (used)"):
        assert codec in printed


@pytest.mark.parametrize("verb", ["plan", "verify", "score", "check"])
def test_experts_are_loaded_where_the_command_says(
    verb: str, data: Path, adopted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands that run an expert load it as `label run` does."""
    seen: list[tuple[str, Placement]] = []

    def load(name: str, weights: object, placement: Placement, choices: object) -> Expert:
        seen.append((name, placement))
        raise ValueError("enough")

    monkeypatch.setattr("cliptex.experts.load.load_expert", load)
    (tmp_path / "VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / "VOC2012" / folder).mkdir()
        for number in range(2):
            (tmp_path / "VOC2012" / folder / f"{number}.png").write_bytes(
                png(np.zeros((4, 6), np.uint8))
            )
    (tmp_path / "VOC2012/ImageSets/Segmentation/val.txt").write_text("0\n1\n")
    voc = str(tmp_path / "VOC2012")
    words = {
        "plan": ["label", "plan", "--data", str(data), "--expert", "playroom:depth"],
        "verify": ["label", "verify", str(adopted), "--data", str(data), "--expert"]
        + ["playroom:depth", "--sample", "1", "--batch-size", "2", "--tolerance.scalar", "0.1"],
        "score": ["label", "score", "--root", voc, "--dataset-kind", "voc", "--expert"]
        + ["playroom:depth"],
        "check": ["experts", "check", "playroom:depth", "--images", f"{voc}/JPEGImages"],
    }[verb]
    assert main([*words, "--device", "cpu:0", "--precision", "bf16"]) == USER_ERROR
    assert seen == [("playroom:depth", Placement("cpu:0", "bfloat16"))]
