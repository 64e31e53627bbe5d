"""PASCAL VOC: lists, masks, SBD, and 20 classes."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cliptex.datasets import VOC_CLASSES, Ade20k, VocSegmentation

from .conftest import VOC_MASK, picture, save_image, save_palette


def test_voc__palette_indices_are_ids(voc):
    train = VocSegmentation(voc, "train_aug")
    assert len(train) == 2 and len(VocSegmentation(voc, "val")) == 1
    assert train.kind.classes == VOC_CLASSES and len(VOC_CLASSES) == 21
    item = train[0]
    assert item.image.shape == (2, 3, 3) and item.image.dtype == np.uint8
    np.testing.assert_array_equal(item.target, [[0, 1, 20], [255, 15, 0]])
    assert item.target.dtype == np.uint8


def test_voc__root_may_be_the_inner_folder(voc):
    assert len(VocSegmentation(voc / "VOC2012", "val")) == 1


def test_voc__own_class_names(voc):
    (voc / "VOC2012" / "labels.txt").write_text("chair\nlamp\n")
    assert VocSegmentation(voc, "val").kind.classes == ("background", "chair", "lamp")
    (voc / "VOC2012" / "labels.txt").write_text("background\nchair\n")
    assert VocSegmentation(voc, "val").kind.classes == ("background", "chair")


@pytest.mark.parametrize("place", ["list", "ImageSets/SegmentationAug"])
def test_voc__other_lists(voc, place):
    root = voc / "VOC2012"
    (root / "ImageSets/Segmentation/train_aug.txt").unlink()
    (root / place).mkdir(parents=True)
    key = "2008_000003"
    line = f"/JPEGImages/{key}.jpg /SegmentationClassAug/{key}.png"
    (root / place / "train_aug.txt").write_text(line if place == "list" else key)
    train = VocSegmentation(voc, "train_aug")
    assert [image.stem for image, _ in train.files] == [key]
    assert train[0].target[0, 2] == 20


def test_voc__train_aug_from_two_lists(voc):
    lists = voc / "VOC2012" / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").unlink()
    (lists / "train.txt").write_text("2007_000001\n2007_000002")
    (lists / "aug.txt").write_text("2007_000002\n2008_000003")
    assert len(VocSegmentation(voc, "train_aug")) == 3


def test_voc__missing_parts_say_the_layout(voc, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'test', only \['train_aug', 'val'\]") as said:
        VocSegmentation(voc, "test")
    assert "`test_split`" in str(said.value) and "\n" not in str(said.value)
    with pytest.raises(FileNotFoundError, match="JPEGImages/KEY.jpg"):
        VocSegmentation(tmp_path / "nowhere", "val")


def test_voc__mask_saved_as_colours_is_refused(voc):
    path = voc / "VOC2012" / "SegmentationClassAug" / "2008_000003.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError, match="2008_000003.png.*'RGB'"):
        VocSegmentation(voc, "val")[0]


def test_voc__class_ids_beyond_the_list_are_named(voc):
    path = voc / "VOC2012" / "SegmentationClassAug" / "2008_000003.png"
    said = r"2008_000003.png: class id 21, but its data set has 21 ids, 0 to 20, or 255 for none"
    for dtype in (np.uint8, np.uint16):
        Image.fromarray(np.full((2, 3), 21, dtype)).save(path)
        with pytest.raises(ValueError, match=f"{said}.*labels.txt"):
            VocSegmentation(voc, "val")[0]
    with pytest.raises(ValueError, match=said):
        VocSegmentation(voc, "val", background="ignore")[0]
    (voc / "VOC2012" / "labels.txt").write_text("\n".join(f"thing {i}" for i in range(21)))
    assert VocSegmentation(voc, "val")[0].target.tolist() == [[21] * 3] * 2


def test_voc__a_mask_of_another_size_is_named(voc):
    folder = voc / "VOC2012"
    Image.new("RGB", (4, 3)).save(folder / "JPEGImages/2008_000003.jpg")
    said = r"Aug/2008_000003.png has 2x3 pixels .*JPEGImages/2008_000003.jpg has 3x4"
    with pytest.raises(ValueError, match=said):
        VocSegmentation(voc, "val")[0]


def test_voc__damaged_mask_is_named(voc):
    path = voc / "VOC2012" / "SegmentationClassAug" / "2008_000003.png"
    for data in (path.read_bytes()[:-30], b"nothing"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="2008_000003.png does not decode"):
            VocSegmentation(voc, "val")[0]


def test_voc__broken_picture_is_named(voc):
    (voc / "VOC2012" / "JPEGImages" / "2008_000003.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="2008_000003.jpg"):
        VocSegmentation(voc, "val")[0]


def test_lists__without_a_line_or_of_other_bytes_are_named(voc, ade):
    lists = voc / "VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"Segmentation/val.txt holds no picture"):
        VocSegmentation(voc, "val")
    (lists / "val.txt").write_bytes("2008_ü".encode("latin-1"))
    with pytest.raises(ValueError, match=r"Segmentation/val.txt is not UTF-8 text .*save it as"):
        VocSegmentation(voc, "val")
    (voc / "VOC2012/labels.txt").write_text("")
    with pytest.raises(ValueError, match="labels.txt holds no class name: list one a line"):
        VocSegmentation(voc, "train_aug")
    (ade / "classes.txt").write_text("")
    with pytest.raises(ValueError, match="classes.txt holds no class name"):
        Ade20k(ade, "training")
    (ade / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    with pytest.raises(ValueError, match="objectInfo150.txt holds no class name"):
        Ade20k(ade, "training")


def test_voc__real(shared_data):
    train = VocSegmentation(shared_data / "VOCdevkit", "train_aug")
    val = VocSegmentation(shared_data / "VOCdevkit", "val")
    assert (len(train), len(val)) == (220, 80)
    item = val[0]
    assert item.image.shape[:2] == item.target.shape
    assert set(np.unique(item.target)) <= {*range(21), 255}


KEYS = ("2007_000001", "2007_000002", "2008_000003")


def save_sbd(root, keys, train, val):
    for value, key in enumerate(keys, start=5):
        ids = np.full((2, 3), value, np.uint8)
        path = root / "benchmark_RELEASE/dataset/cls" / f"{key}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        struct = {"Boundaries": np.zeros(3), "Segmentation": ids}
        scipy.io.savemat(path, {"GTcls": struct})
    for part, listed in (("train", train), ("val", val)):
        (root / f"benchmark_RELEASE/dataset/{part}.txt").write_text("\n".join(listed))


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOCdevkit", "."])
def test_voc__train_aug_from_sbd(voc, tmp_path, place):
    folder = voc / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").unlink()
    (lists / "train.txt").write_text(KEYS[0])
    (folder / "SegmentationClassAug").rename(folder / "SegmentationClass")
    extra = "2009_000004"
    save_image(folder / "JPEGImages" / f"{extra}.jpg", picture(9, (2, 3)))
    # SBD's train holds a picture of VOC's val and one of VOC's train: neither may come from SBD
    save_sbd(tmp_path / place, (*KEYS, extra), (KEYS[2], KEYS[0]), (extra,))
    train = VocSegmentation(voc, "train_aug")
    assert [image.stem for image, _ in train.files] == [KEYS[0], extra]
    np.testing.assert_array_equal(train[0].target, VOC_MASK)
    np.testing.assert_array_equal(train[1].target, np.full((2, 3), 8))
    assert train[1].target.dtype == np.uint8


def test_voc__official_masks_go_before_augmented_ones(voc):
    folder = voc / "VOC2012"
    save_palette(folder / "SegmentationClass" / f"{KEYS[2]}.png", np.full((2, 3), 7, np.uint8))
    assert VocSegmentation(voc, "val")[0].target.tolist() == [[7, 7, 7], [7, 7, 7]]
    np.testing.assert_array_equal(VocSegmentation(voc, "train_aug")[0].target, VOC_MASK)


def test_voc__listed_without_a_mask(voc):
    (voc / f"VOC2012/SegmentationClassAug/{KEYS[1]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 2 listed pictures .* {KEYS[1]}"):
        VocSegmentation(voc, "train_aug")


def test_voc__damaged_sbd_mask_is_named(voc, tmp_path):
    (voc / f"VOC2012/SegmentationClassAug/{KEYS[2]}.png").unlink()
    save_sbd(tmp_path, [KEYS[2]], [KEYS[2]], [])
    path = tmp_path / f"benchmark_RELEASE/dataset/cls/{KEYS[2]}.mat"
    scipy.io.savemat(path, {"GTinst": 1})
    with pytest.raises(ValueError, match=f"{KEYS[2]}.mat has no 'GTcls'"):
        VocSegmentation(voc, "val")[0]


def test_voc__without_background(voc):
    val = VocSegmentation(voc, "val", background="ignore")
    assert val.kind.classes == VOC_CLASSES[1:] and val.kind.ignore == 255
    np.testing.assert_array_equal(val[0].target, [[255, 0, 19], [255, 14, 255]])
    assert val[0].target.dtype == np.uint8
