"""COCO's objects as VOC's class maps."""

import numpy as np
import pytest

from cliptex.datasets import VOC_CLASSES, VocSegmentation
from cliptex.datasets.coco_voc import COCO_WORDS, CocoAsVoc, JoinedDense

from .conftest import picture, save_image


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
