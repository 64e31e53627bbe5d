"""Karpathy's JSON: splits, folders of pictures, damaged entries."""

import json

import numpy as np
import pytest

from cliptex.datasets import ImageFolder, Karpathy
from cliptex.datasets.check import check_dataset
from cliptex.datasets.protocol import read_names


def test_karpathy__restval_is_train_and_uncaptioned_pictures_are_left_out(karpathy):
    folder = karpathy.parent / "images"
    train, test = (
        Karpathy(karpathy, "train", images=folder),
        Karpathy(karpathy, "test", images=folder),
    )
    assert train.files == ["0.jpg", "1.jpg"] and len(test) == 1 and train.name == "tiny"
    assert train.captions[1] == ["picture 1, caption 0", "picture 1, caption 1"]
    assert test.image(0).dtype == np.uint8


@pytest.mark.parametrize("name", ["images", "flickr30k-images", "."])
def test_karpathy__finds_its_pictures_as_the_check_does(karpathy, name):
    folder = karpathy.parent / "images"
    for path in sorted(folder.iterdir()):
        target = karpathy.parent / name / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    assert Karpathy(karpathy, "test").image(0).shape == (6, 8, 3)
    (report,) = check_dataset(karpathy, "karpathy")
    assert {split.name: split.absent for split in report.splits} == {
        "train": 0,
        "val": 0,
        "test": 1,
    }


def test_karpathy__missing_pictures_are_named(karpathy):
    folder = karpathy.parent / "images"
    folder.rename(karpathy.parent / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 .*dataset_tiny.json.*3\.jpg.*`images`"):
        Karpathy(karpathy, "test")
    assert "`images`" in str(check_dataset(karpathy, "karpathy")[0])
    assert len(Karpathy(karpathy, "test", images=karpathy.parent / "elsewhere")) == 1
    with pytest.raises(ValueError, match="is a folder: name the JSON in it"):
        Karpathy(karpathy.parent, "test")


def test_karpathy__faults(karpathy):
    with pytest.raises(
        ValueError, match=r"no split 'dev', only \['restval', 'test', 'train', 'val'\]"
    ):
        Karpathy(karpathy, "dev", images=karpathy.parent / "images")
    with pytest.raises(FileNotFoundError, match="images/FILENAME"):
        Karpathy(karpathy, "test", images=karpathy.parent / "pictures")
    karpathy.write_text('{"images": [{"id": 1, "file_name": "0.jpg"}]}')  # COCO's own
    with pytest.raises(ValueError, match=r"dataset_tiny.json: images\[0\] has no 'filename'"):
        Karpathy(karpathy, "test")
    entry = {"filename": "0.jpg", "split": "test", "sentences": [{"raw": "a"}, {"tokens": ["b"]}]}
    karpathy.write_text(json.dumps({"images": [entry]}))
    with pytest.raises(ValueError, match=r"images\[0\].sentences\[1\] has no 'raw'"):
        Karpathy(karpathy, "test")
    karpathy.write_text("{}")
    with pytest.raises(ValueError, match="no key 'images'"):
        Karpathy(karpathy, "test", images=karpathy.parent / "images")


ENTRY = {"filename": "0.jpg", "split": "test", "sentences": [{"raw": "a"}, {"raw": "b"}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filename": None}, r"images\[0\] has 'filename' None, expected a text"),
        ({"split": None}, r"images\[0\] has 'split' None, expected a text"),
        ({"filepath": 7}, r"images\[0\] has 'filepath' 7, expected a text"),
        (
            {"sentences": [{"raw": "a"}, {"raw": None}]},
            r"images\[0\].sentences\[1\] has 'raw' None, expected a text",
        ),
    ],
)
def test_karpathy__what_is_no_text_is_named(karpathy, change, said):
    karpathy.write_text(json.dumps({"images": [{**ENTRY, **change}]}))
    with pytest.raises(ValueError, match=rf"dataset_tiny\.json: {said}"):
        Karpathy(karpathy, "test")


def test_karpathy__name_and_sentences_may_be_null(karpathy):
    images = [{**ENTRY, "filepath": None}, {**ENTRY, "filename": "1.jpg", "sentences": None}]
    karpathy.write_text(json.dumps({"dataset": None, "images": images}))
    test = Karpathy(karpathy, "test")
    assert test.name == "dataset_tiny" and test.files == ["0.jpg"]
    (found,) = check_dataset(karpathy, "karpathy")
    assert "1 pictures with 0 captions" in found.notes
    karpathy.write_text(json.dumps({"dataset": 7, "images": images}))
    with pytest.raises(ValueError, match="the file has 'dataset' 7, expected a text"):
        Karpathy(karpathy, "test")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark__is_no_part_of_a_file(karpathy, tmp_path, mark):
    karpathy.write_text(mark + karpathy.read_text(), encoding="utf-8")
    assert len(Karpathy(karpathy, "test")) == 1
    assert check_dataset(karpathy.parent, "karpathy")[0].path == karpathy
    (tmp_path / "names.txt").write_text(f"{mark}chair\nlamp\n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == ["chair", "lamp"]


def test_real(shared_data):
    root = shared_data / "imagenette-mini"
    train = ImageFolder(root, "train")
    assert (len(train), len(ImageFolder(root, "val"))) == (600, 300)
    assert train.classes[0] == "tench" and len(train.classes) == 10
    folder = shared_data / "flickr8k-mini"
    sets = [
        Karpathy(folder / "dataset_flickr8k.json", split, images=folder / "images")
        for split in ("train", "val", "test")
    ]
    assert [len(s) for s in sets] == [1300, 100, 200]
    assert {len(captions) for captions in sets[2].captions} == {5}
    assert sets[2].image(0).shape == (224, 224, 3)
