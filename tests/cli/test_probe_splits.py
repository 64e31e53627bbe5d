"""Splits that would choose or train on the pictures that are scored are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.probes.options import ProbeOptions
from cliptex.results import read_results
from datasets import ClassLabel, Dataset, Features
from datasets import Image as Picture


def options(root: Path, dataset: Any = "voc", **more: Any) -> ProbeOptions:
    return ProbeOptions(model="playroom", dataset=dataset, root=root, **more)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"val_split": "test"}, "`val_split` and `test_split` are both 'test': leave out"),
        ({"val_split": "train"}, "`val_split` and `train_split` are both 'train': leave out"),
        ({"test_split": "train"}, "`train_split` and `test_split` are both 'train': set another"),
    ],
)
def test_equal_names__are_refused(voc: Path, splits: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options(voc, **splits).splits()


@pytest.mark.parametrize("more", [(), ("--recipe", "paper"), ("--recipe", "paper", "--dry-run")])
def test_equal_names__from_the_command_line(voc, tmp_path, capsys, more) -> None:
    out = tmp_path / "r.jsonl"
    words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", str(voc), *more]
    words += ["--val-split", "test", "--lr", "0.1", "0.2", "--out", str(out)]
    assert main(words) == 2 and not out.exists()
    error = capsys.readouterr().err
    assert "held-out part of train" in error and len(error.strip().splitlines()) == 1


def test_lists__with_pictures_of_test_are_refused(voc: Path) -> None:
    lists = voc / "ImageSets/Segmentation"
    (lists / "trainval.txt").write_text("0\n1\n2\n3\n4\n")
    (lists / "train_aug.txt").write_text("0\n1\n2\n3\n")
    said = r"`train_split` holds 1 of the 2 pictures of `test_split`, such as .*JPEGImages/4\.jpg"
    with pytest.raises(ValueError, match=said):
        options(voc, train_split="trainval").splits()
    with pytest.raises(ValueError, match="`val_split` holds 1 of the 2 .*leave out `val_split`"):
        options(voc, val_split="trainval").splits()
    train, val, _ = options(voc, train_split="train_aug", val_split="train").splits()
    assert len(train) == len(val) == 4


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(place / "0.png")
    return tmp_path


def test_folders__of_the_pictures_that_are_learnt_from_are_refused(folders: Path) -> None:
    assert len(options(folders, "folder").splits()[0]) == 2
    shutil.rmtree(folders / "val")
    (folders / "val").symlink_to("train")
    with pytest.raises(ValueError, match="`train_split` holds 2 of the 2 .*train/cat/0.png"):
        options(folders, "folder").splits()


def test_folders__of_a_class_without_training_pictures_are_refused(folders: Path) -> None:
    (folders / "val/cat/0.png").unlink()
    assert len(options(folders, "folder").splits()[2]) == 1
    (folders / "train/cat/0.png").unlink()
    with pytest.raises(ValueError, match=r"`train_split`: .*train/cat holds no picture \(1 such"):
        options(folders, "folder").splits()


def test_defaults__are_the_usual_splits_of_the_layout(voc: Path) -> None:
    lists = voc / "ImageSets/Segmentation"
    assert options(voc).chosen_splits() == ("train", None, "test")
    (lists / "test.txt").rename(lists / "val.txt")
    train, val, test = options(voc).splits()
    assert (len(train), val, len(test)) == (4, None, 2)
    assert options(voc).split_names()["test_split"] == "val"
    (lists / "sub.txt").write_text("0\n")
    given = options(voc, train_split="sub", val_split="train", test_split="val")
    assert given.chosen_splits() == ("sub", "train", "val")


def test_unknown_split__is_one_short_line_with_those_that_exist(voc, tmp_path, capsys) -> None:
    words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", str(voc)]
    words += ["--test-split", "val", "--out", str(tmp_path / "r.jsonl")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no split 'val', only ['test', 'train']" in line and "--test-split" in line
    assert len(line) < 160 + len(str(voc))


def test_fastdepth__test_is_another_name_of_val(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "room").mkdir(parents=True)
        (tmp_path / split / "room/1.h5").touch()
    assert len(options(tmp_path, "nyu-raw").splits()[2]) == 1
    with pytest.raises(ValueError, match="`val_split` holds 1 of the 1 pictures .*val/room/1.h5"):
        options(tmp_path, "nyu-raw", val_split="val").splits()


def test_hub__a_lone_set_is_no_two_splits(tmp_path: Path) -> None:
    features = Features({"image": Picture(), "label": ClassLabel(names=["a", "b"])})
    picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    rows = {"image": [picture] * 2, "label": [0, 1]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "lone")
    with pytest.raises(ValueError, match="`train_split` holds 2 of the 2 pictures"):
        options(tmp_path / "lone", "hub-classes").splits()


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_class_ids_beyond_the_list__are_one_line(voc, tmp_path, capsys, recipe) -> None:
    Image.fromarray(np.full((64, 96), 7, np.uint8)).save(voc / "SegmentationClass/2.png")
    words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", str(voc)]
    words += ["--out", str(tmp_path / "r.jsonl"), "--resolution", "64", "--recipe", recipe]
    words += ["--warmup-steps", "1"] if recipe == "paper" else []
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "SegmentationClass/2.png: class id 7" in error and "3 ids" in error
    assert "labels.txt" in error and len(error.strip().splitlines()) == 1


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two pictures of an aeroplane, as COCO keeps them."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    images, annotations = [], []
    for number in (1, 2):
        name = f"{number}.png"
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(root / "train2017" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": 64})
        corners = [0, 0, 64, 0, 64, 32, 0, 32]
        annotations.append({"id": number, "image_id": number, "category_id": 5, "iscrowd": 0})
        annotations[-1] |= {"bbox": [0, 0, 64, 32], "area": 2048, "segmentation": [corners]}
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 5, "name": "airplane"}]
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_extra_coco__is_learnt_from_and_rows_say_so(voc, coco, tmp_path, capsys, recipe) -> None:
    (voc / "labels.txt").unlink()
    out = tmp_path / "r.jsonl"
    words = ["probe", "--model", "playroom", "--dataset", "voc", "--root", str(voc)]
    words += ["--extra-coco", str(coco), "--out", str(out), "--resolution", "64", "--epochs", "2"]
    words += ["--recipe", recipe, "--lr", "0.01"]
    words += ["--warmup-steps", "1", "--probe", "linear"] if recipe == "paper" else []
    assert main(words) == 0, capsys.readouterr().err
    row = read_results(out)[0]
    assert row.dataset == "voc" and row.n == 2
    assert row.protocol["train_images"] == 6
    assert row.protocol["train_sets"] == ["voc", "coco-voc"]


def test_extra_coco__of_other_sets_and_classes_is_refused(voc, coco) -> None:
    more = {"extra_coco": coco}
    with pytest.raises(ValueError, match=r"`root` has 3 classes of its own \(labels.txt\)"):
        options(voc, **more).splits()
    with pytest.raises(
        ValueError, match="`extra_coco`: it applies only to `dataset=voc`; leave it out"
    ):
        options(voc, "voc20", **more).splits()


def test_root__that_is_not_there_is_named_in_short(tmp_path, capsys):
    where = ["--dataset", "voc", "--root", str(tmp_path / "nowhere"), "--model", "playroom"]
    for command in ("probe", "zeroshot"):
        assert main([command, *where, "--out", str(tmp_path / "r.jsonl")]) == 2
        error = capsys.readouterr().err
        assert f"--root: {tmp_path / 'nowhere'} does not exist" in error and len(error) < 300
