import json

import numpy as np
import pytest
from PIL import Image

from cliptex.datasets import ImageFolder, Karpathy
from cliptex.datasets.check import check_dataset
from cliptex.datasets.protocol import read_names


def test_folder__classes_are_sorted(folders):
    train = ImageFolder(folders, "train")
    assert train.folders == train.classes == ("n01", "n02", "n10")
    assert len(train) == 6 and train.name == "classes"
    assert [train[i][1] for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert train[0][0].shape == (6, 8, 3)


def test_folder__readable_names(folders):
    given = ImageFolder(folders, "val", names={"n01": "tench"}, name="tiny")
    assert given.classes == ("tench", "n02", "n10") and given.name == "tiny"
    (folders / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn10 cassette player")
    assert ImageFolder(folders, "val").classes == ("tench", "n02", "cassette player")


def test_folder__faults(folders):
    (folders / ".hidden/n01").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no split 'test', only \['train', 'val'\]: name one"):
        ImageFolder(folders, "test")
    with pytest.raises(FileNotFoundError, match="ROOT/SPLIT/CLASS"):
        ImageFolder(folders / "train/n01", "test")
    (folders / "test").mkdir()
    with pytest.raises(FileNotFoundError, match="no class folder"):
        ImageFolder(folders, "test")


def test_folder__hidden_folders_are_no_classes(folders):
    (folders / "train/.ipynb_checkpoints").mkdir()
    assert ImageFolder(folders, "train").classes == ("n01", "n02", "n10")


@pytest.mark.parametrize(
    "suffix", [".bmp", ".BMP", ".dib", ".gif", ".webp", ".Png", ".jpe", ".jfif", ".TIFF", ".ppm"]
)
def test_folder__pictures_of_every_suffix_are_read(folders, suffix):
    path = folders / "train/n01/0.JPEG"
    with Image.open(path) as picture:
        picture.save(path.with_suffix(suffix))
    path.unlink()
    train = ImageFolder(folders, "train")
    assert [file.suffix for file, label in train.files if label == 0] == [suffix, ".JPEG"]
    assert train[0][0].shape == (6, 8, 3)


def test_folder__files_that_are_no_images_are_counted(folders, said):
    for name in ("x.heif", "y.JXL", "z.jxl", ".hidden"):
        (folders / "train/n02" / name).write_bytes(b"x")
    train = ImageFolder(folders, "train")
    assert len(train) == 6
    assert [path.name for path in train.left_out] == ["notes.txt", "x.heif", "y.JXL", "z.jxl"]
    (line,) = said()
    assert "4 files are not read as images (2 .jxl, 1 .txt, 1 .heif), such as " in line
    assert line.endswith(str(folders / "train/n01/notes.txt"))
    for path in folders.glob("train/*/*.JPEG"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no class folder with images \(4 files are not"):
        ImageFolder(folders, "train")


def test_folder__pictures_a_level_too_deep_are_named(folders):
    (folders / "train/n01/.cache").mkdir()
    (folders / "train/n01/notes").mkdir()
    (folders / "train/n01/x.jpg").mkdir()
    for inner in (".cache/0.jpg", "notes/a.txt"):
        (folders / "train/n01" / inner).write_bytes(b"")
    assert len(ImageFolder(folders, "train")) == 6
    (folders / "val/n01/images").mkdir()
    (folders / "val/n01/0.JPEG").rename(folders / "val/n01/images/0.JPEG")
    with pytest.raises(ValueError, match=r"n01/images/0.JPEG lies one level too deep: .*val/n01\)"):
        ImageFolder(folders, "val")


def test_folder__classes_without_pictures_keep_their_number(folders):
    (folders / "val/n02/0.JPEG").unlink()
    val = ImageFolder(folders, "val")
    assert val.classes == ("n01", "n02", "n10") and val.empty == [str(folders / "val/n02")]
    assert [label for _, label in val.files] == [0, 2]


def test_folder__pictures_are_told_apart_by_their_files(folders):
    train = ImageFolder(folders, "train")
    assert train.pictures == [str(path.resolve()) for path, _ in train.files]
    (folders / "other").symlink_to("train")
    assert ImageFolder(folders, "other").pictures == train.pictures
    (folders / "val/n10/0.JPEG").unlink()
    (folders / "val/n10/1.jpg").symlink_to(folders / "train/n10/0.JPEG")
    shared = set(ImageFolder(folders, "val").pictures) & set(train.pictures)
    assert shared == {str((folders / "train/n10/0.JPEG").resolve())}


def test_folder__name_of_a_relative_root(folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert ImageFolder(".", "train").name == "classes"
    monkeypatch.chdir(folders / "train")
    assert ImageFolder("..", "train").name == "classes"
    (folders.parent / "link").symlink_to(folders)
    assert ImageFolder(folders.parent / "link", "train").name == "link"


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
