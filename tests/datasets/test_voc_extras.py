"""VOC with SBD's masks, without its background, and with COCO."""

import numpy as np
import pytest
import scipy.io

from cliptex.datasets import VOC_CLASSES, VocSegmentation
from cliptex.datasets.coco_voc import COCO_WORDS, CocoAsVoc, JoinedDense

from .conftest import VOC_MASK, picture, save_image, save_palette

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


def test_coco_words__are_coco_names(shared_data):
    from cliptex.datasets.coco import CocoInstances

    classes = CocoInstances(shared_data / "coco-mini", "val").classes
    assert {COCO_WORDS.get(c, c) for c in VOC_CLASSES[1:]} <= set(classes)
    assert set(COCO_WORDS) <= set(VOC_CLASSES) and not set(COCO_WORDS) & set(classes)


def test_coco__real_masks_are_voc_classes(shared_data):
    val = CocoAsVoc(shared_data / "coco-mini", "val")
    seen = [val[i] for i in range(10)]
    assert all(item.image.shape[:2] == item.target.shape for item in seen)
    found = set(np.unique(np.concatenate([item.target.ravel() for item in seen])).tolist())
    assert 0 in found and len(found) > 3 and found <= set(range(21))
    with pytest.raises(ValueError, match="different kinds"):
        JoinedDense([val, VocSegmentation(shared_data / "VOCdevkit", "val", background="ignore")])
    both = JoinedDense([val, VocSegmentation(shared_data / "VOCdevkit", "val")], name="both")
    assert len(both) == 129 + 80 and both.kind == val.kind and both.name == "both"
    np.testing.assert_array_equal(both[128].target, val[128].target)
    item = both[129]
    voc = VocSegmentation(shared_data / "VOCdevkit", "val")
    np.testing.assert_array_equal(item.target, voc[0].target)
    with pytest.raises(IndexError):
        both[209]


def test_coco__first_object_keeps_the_pixel(tmp_path):
    import json

    save_image(tmp_path / "val2017/1.png", picture(0, (4, 6)))
    square = [0, 0, 4, 0, 4, 4, 0, 4]
    later = [2, 0, 6, 0, 6, 4, 2, 4]

    def thing(number, category, polygon, crowd=0):
        return {
            "id": number,
            "image_id": 1,
            "category_id": category,
            "iscrowd": crowd,
            "bbox": [0, 0, 6, 4],
            "area": 24,
            "segmentation": {"size": [4, 6], "counts": [20, 4]} if crowd else [polygon],
        }

    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 4, "width": 6}],
        "annotations": [thing(1, 5, square), thing(2, 44, later), thing(3, 90, later)],
        "categories": [
            {"id": 5, "name": "airplane"},
            {"id": 44, "name": "bottle"},
            {"id": 90, "name": "toothbrush"},
        ],
    }
    content["annotations"].append(thing(4, 5, None, crowd=1))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    target = CocoAsVoc(tmp_path, "val")[0].target
    assert target.tolist() == [[1, 1, 1, 1, 5, 5]] * 4
