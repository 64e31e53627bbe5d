"""`cliptex zeroshot`: what it reads, what it records, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.results import Result, read_results


def save(path: Path, seed: int, size: tuple[int, int] = (40, 70)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def run(tmp_path: Path, *arguments: object) -> list[Result]:
    out = tmp_path / "results.jsonl"
    words = ["zeroshot", "--model", "playroom", "--out", out, *arguments]
    assert main([str(word) for word in words]) == 0
    return read_results(out)


def test_folder__is_scored_on_val_where_there_is_no_test(tmp_path):
    for synset in ("n01440764", "n03445777"):
        save(tmp_path / "set/val" / synset / "0.png", 1)
    arguments = ["--dataset", "folder", "--root", tmp_path / "set", "--resolution", 64]
    (row,) = [r for r in run(tmp_path, *arguments) if r.metric == "top1"]
    assert row.n == 2 and row.protocol["test_split"] == "val"


def test_folder__options_are_recorded(tmp_path, capsys):
    for synset in ("n01440764", "n03445777"):
        save(tmp_path / "set/val" / synset / "0.png", 1)
    arguments = ["--dataset", "folder", "--root", tmp_path / "set", "--split", "val"]
    arguments += ["--resolution", 60, "--crop", "center"]
    first = run(tmp_path, *arguments)[-1]
    assert first.protocol["templates"] == "openai80" and first.protocol["classes"] == 2
    assert first.protocol["resolution"] == 60 and first.protocol["crop"] == "center"
    assert first.protocol["encoder_resolution"] == 64
    (tmp_path / "templates.txt").write_text("a {}\n")
    (tmp_path / "names.txt").write_text("chair; seat\nlamp\n")
    own = run(
        tmp_path,
        *arguments,
        *("--templates", tmp_path / "templates.txt", "--classes", tmp_path / "names.txt"),
    )[-1]
    assert own.protocol["templates"] == ["a {}"]
    assert own.protocol["class_names"] != first.protocol["class_names"]
    bare = run(tmp_path, *arguments[:6], "--precision", "bf16")[-1]
    assert bare.protocol["resolution"] == 64  # what the model was trained at
    assert bare.protocol["precision"] == "bf16"
    out = ["--out", str(tmp_path / "results.jsonl"), "--model", "playroom"]
    words = [*map(str, arguments), "--templates", "openai79"]
    assert main(["zeroshot", *out, *words]) == 2
    assert "openai79" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--resolution", "0"), "--resolution 0: a side in pixels, of at least 1"),
        (("--resolution", "-8"), "--resolution -8: a side in pixels, of at least 1"),
        (
            ("--classes", "names.txt"),
            "--classes names.txt: it names 1, but set has 2 classes: one line for each, in "
            "their order",
        ),
    ],
)
def test_folder__options_that_fit_nothing_are_refused_without_the_model(
    tmp_path, capsys, monkeypatch, option, told
):
    for synset in ("n01440764", "n03445777"):
        save(tmp_path / "set/val" / synset / "0.png", 1)
    (tmp_path / "names.txt").write_text("chair; seat\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cliptex.models.clip.load_clip", lambda *_: pytest.fail("loaded"))
    words = ["zeroshot", "--model", "playroom", "--dataset", "folder", "--root", "set"]
    assert main([*words, "--out", "r.jsonl", *option]) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


def test_karpathy__images_are_found_beside_the_json_or_asked_for(tmp_path, capsys):
    save(tmp_path / "images/1.jpg", 1)
    entry = {"filename": "1.jpg", "split": "test", "sentences": [{"raw": "a"}]}
    path = tmp_path / "dataset_tiny.json"
    path.write_text(json.dumps({"images": [entry]}))
    arguments = ["--dataset", "karpathy", "--root", path, "--resolution", 32]
    assert run(tmp_path, *arguments)
    (tmp_path / "images").rename(tmp_path / "pictures")
    words = ["zeroshot", "--model", "playroom", "--out", tmp_path / "r", *arguments]
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and "1.jpg" in error and "--images" in error


@pytest.mark.parametrize("command", ["zeroshot --model playroom", "datasets overlap --data x"])
def test_images__are_refused_where_the_layout_says_where_they_are(tmp_path, capsys, command):
    save(tmp_path / "set/val/n01440764/0.png", 1)
    out = tmp_path / "results.jsonl"
    words = [*command.split(), "--dataset", "folder", "--root", tmp_path / "set", "--out", out]
    assert main([*map(str, words), "--images", str(tmp_path)]) == 2 and not out.exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: --images: only for the layout karpathy, and this is folder; leave it out"


def test_voc__segmentation_from_text(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    for key in ("a", "b"):
        save(root / f"JPEGImages/{key}.jpg", 3)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask = np.zeros((40, 70), np.uint8)
        mask[:, 35:] = 9  # chair
        Image.fromarray(mask).save(root / f"SegmentationClass/{key}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\n")
    common = ["--root", tmp_path / "VOCdevkit", "--split", "val", "--resolution", 64]
    rows = run(tmp_path, "--dataset", "voc", *common)
    assert [(row.task, row.dataset, row.metric) for row in rows] == [
        ("zeroshot-segmentation", "voc", "miou"),
        ("zeroshot-segmentation", "voc", "miou_things"),
    ]
    assert rows[0].protocol["classes"] == 21 and 0 <= rows[0].value <= 100
    last = run(tmp_path, "--dataset", "voc20", *common)[-1]
    assert (last.dataset, last.metric) == ("voc20", "miou")
    assert last.protocol["classes"] == 20 and last.protocol["background"] == "none"


def test_captions__classes_are_refused(tmp_path, capsys):
    (tmp_path / "annotations").mkdir()
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(3)]
    captions = [{"image_id": i % 3, "caption": "a chair" if i % 3 else "a lamp"} for i in range(6)]
    content = {"images": images, "annotations": captions}
    (tmp_path / "annotations/captions_val2017.json").write_text(json.dumps(content))
    for i in range(3):
        save(tmp_path / f"val2017/{i}.png", i)
    arguments = ["--dataset", "coco-captions", "--root", tmp_path, "--split", "val"]
    arguments += ["--resolution", 64]
    rows = run(tmp_path, *arguments)
    assert {row.metric for row in rows} >= {"image_r1", "text_r5"}
    assert rows[0].dataset == "coco-captions" and rows[0].protocol["captions"] == 6
    words = ["--model", "playroom", "--out", tmp_path / "x", "--classes", tmp_path / "y"]
    assert main(["zeroshot", *map(str, [*arguments, *words])]) == 2
    assert "--classes" in capsys.readouterr().err
