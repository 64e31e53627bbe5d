"""Boxes of data sets of the Hugging Face library."""

import numpy as np
import pytest

from cliptex.datasets.hub import HubCoco
from datasets import ClassLabel, Dataset, Features, Image, List, Sequence, Value

from .conftest import picture
from .test_hub import cell

NAMES = ["person", "bicycle", "car"]
BOX = Sequence(Value("float64"), length=4)
OBJECT = {"bbox_id": Value("int64"), "category": ClassLabel(names=NAMES), "bbox": BOX}
THINGS = [
    {"bbox_id": [7, 9], "category": [2, 0], "bbox": [[1, 2, 5, 4], [0, 0, 0.5, 6]]},
    {"bbox_id": [], "category": [], "bbox": []},
]


def rows(objects=THINGS, feature=None, **columns) -> Dataset:
    """Pictures of 6 x 8 pixels with their objects, as detection-datasets/coco has them."""
    features = {"image_id": Value("int64"), "image": Image(), "width": Value("int64")}
    features |= {"height": Value("int64"), "objects": feature or Sequence(OBJECT)}
    count = len(objects)
    data = {"image_id": [100 - i for i in range(count)], "width": [8] * count}
    data |= {"height": [6] * count, "image": [cell(picture(i)) for i in range(count)]}
    data |= {"objects": objects, **columns}
    return Dataset.from_dict(data, features=Features(features))


def test_boxes__corners_become_items_and_what_scoring_takes(tmp_path):
    (tmp_path / "data").mkdir()
    rows().to_parquet(tmp_path / "data/val-00000-of-00001.parquet")
    val = HubCoco(tmp_path, "val")
    assert (len(val), val.classes, val.image_ids) == (2, tuple(NAMES), (100, 99))
    item = val.item(0, masks=False)
    np.testing.assert_array_equal(item.image, picture(0))
    assert item.boxes.tolist() == [[1, 2, 5, 4]] and item.labels.tolist() == [
        3
    ]  # half a pixel: out
    assert val.with_objects() == [0] and val.item(1, masks=False).boxes.shape == (0, 4)
    truth = val.ground_truth([0, 1])
    assert [image["id"] for image in truth["images"]] == [100, 99]
    first, second = truth["annotations"]
    assert first["bbox"] == [1, 2, 4, 2] and (first["area"], first["iscrowd"]) == (8, 0)
    assert (first["category_id"], second["category_id"]) == (3, 1) and first["id"] == 1
    assert truth["categories"][2] == {"id": 3, "name": "car"}
    with pytest.raises(ValueError, match="opened without masks"):
        val.item(0, masks=True)


def test_boxes__areas_and_lists_of_objects(tmp_path):
    things = [[{"category": 1, "bbox": [0, 1, 8, 6], "area": 13.5}]]
    feature = List({**OBJECT, "area": Value("float64")})
    things[0][0]["bbox_id"] = 1
    rows(things, feature).remove_columns("image_id").save_to_disk(tmp_path)
    train = HubCoco(tmp_path, "train")
    (entry,) = train.ground_truth([0])["annotations"]
    assert (entry["area"], entry["bbox"], entry["image_id"]) == (13.5, [0, 1, 8, 5], 1)


@pytest.mark.parametrize("box", [[3, 2, 2, 4], [1, 2, 8, 20], [1, 2, float("nan"), 4]])
def test_boxes__that_are_no_corners_are_refused(box, tmp_path):
    rows([{"bbox_id": [1], "category": [0], "bbox": [box]}]).save_to_disk(tmp_path / "coco")
    with pytest.raises(ValueError, match=r"row 0: bbox \[.*8 wide and 6 high.*not COCO's \[left"):
        HubCoco(tmp_path / "coco", "train")


def test_faults__say_what_is_there(tmp_path):
    rows().remove_columns("width").save_to_disk(tmp_path / "unsized")
    said = r"no width column among \['height', 'image', 'image_id', 'objects'\]"
    with pytest.raises(ValueError, match=said):
        HubCoco(tmp_path / "unsized", "train")
    odd = [{"label": [0]}, {"label": []}]
    rows(odd, Sequence({"label": Value("int64")})).save_to_disk(tmp_path / "odd")
    with pytest.raises(ValueError, match=r"has no bbox and no category among \['label'\]"):
        HubCoco(tmp_path / "odd", "train")
    bare = Sequence({**OBJECT, "category": Value("int64")})
    rows(feature=bare).save_to_disk(tmp_path / "bare")
    with pytest.raises(ValueError, match="categories have no names: cast them to a ClassLabel"):
        HubCoco(tmp_path / "bare", "train")
    rows(image_id=[1, 1]).save_to_disk(tmp_path / "twice")
    with pytest.raises(ValueError, match="several rows have one image_id"):
        HubCoco(tmp_path / "twice", "train")
    rows(height=[7, 6]).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="row 0 has 6x8 pixels, its annotations are for 7x8"):
        HubCoco(tmp_path / "other", "train").item(0, masks=False)
