"""A folder per class."""

import pytest
from PIL import Image

from cliptex.datasets import ImageFolder, imagenet_names

from .conftest import picture, save_image

TENCH, CRANE = "n01440764", "n02012849"


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


def test_folder__synsets_get_their_names(tmp_path):
    for name in (TENCH, CRANE, "n99999999", "lamp"):
        save_image(tmp_path / "val" / name / "0.png", picture(0))
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{CRANE} crane\nn99999999 thing, item\n")
    names = imagenet_names()
    assert ImageFolder(tmp_path, "val").classes == ("lamp", "tench", names[CRANE], "thing")
