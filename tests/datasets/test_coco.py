"""COCO instances in the original layout: ids, boxes, masks, crowds, and damaged files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptex.datasets.coco import CocoInstances, decode_mask

SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]  # pixels of columns 1..3 and rows 1..2


def annotation(number: int, image: int, category: int, **other) -> dict:
    base = {"bbox": [1, 1, 3, 2], "area": 6, "segmentation": [SQUARE], "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": category, **base, **other}


CONTENT = {
    "images": [
        {"id": 42, "file_name": "b.png", "height": 4, "width": 6},
        {"id": 7, "file_name": "a.png", "height": 5, "width": 5},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
    "annotations": [
        annotation(1, 42, 90),
        annotation(2, 42, 3, bbox=[-2, 1, 4, 99]),
        annotation(3, 42, 3, bbox=[2, 2, 0.5, 1]),
        annotation(4, 7, 3, iscrowd=1, segmentation={"counts": [6, 2, 17], "size": [5, 5]}),
    ],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write(tmp_path, CONTENT)
    (tmp_path / "val2017").mkdir()
    for i, about in enumerate(CONTENT["images"]):
        array = np.full((about["height"], about["width"], 3), 50 * (i + 1), np.uint8)
        Image.fromarray(array).save(tmp_path / "val2017" / about["file_name"])
    return tmp_path


def write(root: Path, content: object) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def test_labels__follow_the_sparse_ids_in_rising_order(coco: Path) -> None:
    data = CocoInstances(coco, "val")
    assert (data.classes, data.category_ids) == (("car", "toothbrush"), (3, 90))
    assert data.image_ids == (42, 7)
    item = data.item(0, masks=True)
    assert item.image.shape == (4, 6, 3) and item.image[0, 0, 0] == 50
    np.testing.assert_array_equal(item.labels, [2, 1])


def test_boxes__are_clipped_and_slivers_dropped(coco: Path) -> None:
    item = CocoInstances(coco, "val").item(0, masks=False)
    np.testing.assert_array_equal(item.boxes, [[1, 1, 4, 3], [0, 1, 2, 4]])
    assert item.boxes.dtype == np.float32 and item.masks is None


def test_masks__of_a_polygon_and_of_run_lengths(coco: Path) -> None:
    item = CocoInstances(coco, "val").item(0, masks=True)
    assert item.masks is not None
    expected = np.zeros((4, 6), np.uint8)
    expected[1:3, 1:4] = 1
    np.testing.assert_array_equal(item.masks[0], expected)
    runs = decode_mask({"counts": [6, 2, 17], "size": [5, 5]}, 5, 5)
    assert np.argwhere(runs).tolist() == [[1, 1], [2, 1]]  # column by column


def test_crowds__are_scored_but_not_learnt(coco: Path) -> None:
    data = CocoInstances(coco, "val")
    item = data.item(1, masks=True)
    assert item.boxes.shape == (0, 4) and item.masks is not None and item.masks.shape == (0, 5, 5)
    assert data.with_objects() == [0]
    assert [a["id"] for a in data.ground_truth([1])["annotations"]] == [4]
    assert [i["id"] for i in data.ground_truth([1])["images"]] == [7]


def test_subset__by_id(coco: Path) -> None:
    data = CocoInstances(coco, "val", ids=[7])
    assert len(data) == 1 and data.image_ids == (7,)
    assert len(data.classes) == 2, "a subset keeps all classes"
    (coco / "val2017" / "b.png").unlink()
    assert len(CocoInstances(coco, "val", ids=[7])) == 1
    with pytest.raises(ValueError, match=r"no image of id \[5\]"):
        CocoInstances(coco, "val", ids=[5])


def test_missing_image__is_named(coco: Path) -> None:
    (coco / "val2017" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images .* missing.*a\.png.*`ids`"):
        CocoInstances(coco, "val")


def test_wrong_size__is_an_error(coco: Path) -> None:
    Image.new("RGB", (3, 3)).save(coco / "val2017" / "a.png")
    with pytest.raises(ValueError, match="3x3 pixels, its annotations are for 5x5"):
        CocoInstances(coco, "val").item(1, masks=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [annotation(1, 1, 3)]}, "annotation 1 has image_id 1"),
        ({"annotations": [annotation(1, 42, 4)]}, "annotation 1 has category_id 4"),
    ],
)
def test_dangling_annotations__are_named(coco: Path, change: dict, message: str) -> None:
    write(coco, CONTENT | change)
    with pytest.raises(ValueError, match=message):
        CocoInstances(coco, "val")


def changed(part: str, **values: object) -> dict:
    """The content with these values in the last entry of `part`."""
    *entries, last = CONTENT[part]
    return {**CONTENT, part: [*entries, {**last, **values}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("images", id=42), "several images have id 42: list each once"),
        (changed("images", id="img_7"), "images: 'a.png' has id 'img_7', expected a whole number"),
        (changed("images", file_name=None), r"images\[1\] has 'file_name' None, .* \(id 7\)"),
        (changed("images", height=5.0), "image 7: height and width must be positive whole"),
        (changed("categories", id=90), "several categories have id 90"),
        (changed("categories", id="3"), "categories: 'car' has id '3', expected a whole number"),
        (changed("annotations", image_id=[7]), r"annotations\[\d\] has 'image_id' \[7\], expected"),
        (changed("annotations", area=None), "annotation 4 has area None, expected a number"),
        (changed("annotations", image_id="7"), "annotation 4 has image_id '7', which the file"),
    ],
)
def test_odd_ids_and_names__are_refused(coco: Path, content: dict, message: str) -> None:
    write(coco, content)
    with pytest.raises(ValueError, match=rf"instances_val2017\.json: {message}"):
        CocoInstances(coco, "val")


def test_file_names__may_begin_at_the_folder(coco: Path) -> None:
    write(coco, changed("images", file_name="./a.png"))
    data = CocoInstances(coco, "val")
    assert data.pictures == [str(coco / "val2017" / name) for name in ("b.png", "a.png")]
    assert data.item(1, masks=False).image.shape == (5, 5, 3)


def test_other_files__are_refused(coco: Path) -> None:
    write(coco, {"images": []})
    with pytest.raises(ValueError, match="no key 'annotations', 'categories'"):
        CocoInstances(coco, "val")
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(CONTENT)[:-9])
    with pytest.raises(ValueError, match="instances_val2017.json is not complete JSON .*cut off"):
        CocoInstances(coco, "val")
    with pytest.raises(ValueError, match=r"annotations has no split 'test', only \['val'\]"):
        CocoInstances(coco, "test")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no split 'val', nor another; expected"):
        CocoInstances(coco, "val")


def lacking(part: str, key: str) -> dict:
    """The content without `key` in the last entry of `part`."""
    *entries, last = CONTENT[part]
    return {**CONTENT, part: [*entries, {k: v for k, v in last.items() if k != key}]}


@pytest.mark.parametrize(
    ("part", "key"),
    [("images", key) for key in ("id", "file_name", "height", "width")]
    + [("annotations", key) for key in ("id", "image_id", "category_id", "bbox", "area")]
    + [("categories", key) for key in ("id", "name")],
)
def test_keys_that_are_needed__are_named_at_once(coco: Path, part: str, key: str) -> None:
    write(coco, lacking(part, key))
    said = rf"instances_val2017.json: {part}\[\d\] has no '{key}'.*: every one of {part} needs"
    with pytest.raises(ValueError, match=said):
        CocoInstances(coco, "val")


def test_masks__are_needed_unless_boxes_are_enough(coco: Path) -> None:
    for content in (
        lacking("annotations", "segmentation"),
        CONTENT | {"annotations": [annotation(4, 42, 3, segmentation=[])]},
    ):
        write(coco, content)
        with pytest.raises(ValueError, match="1 annotations have no 'segmentation', such as 4"):
            CocoInstances(coco, "val")
        data = CocoInstances(coco, "val", masks=False)
        assert len(data.item(0, masks=False).boxes)
        with pytest.raises(ValueError, match="coco was opened without masks"):
            data.item(0, masks=True)


BAD_MASKS = [
    ([[]], "no list of polygons"),
    ([[1, 2]], "no list of polygons"),
    (SQUARE, "no list of polygons"),
    ([[*SQUARE[:-1], None]], "no list of polygons"),
    ([[*SQUARE[:-1], float("nan")]], "no list of polygons"),  # would be filled for hours
    ([[*SQUARE[:-1], 1e300]], "no list of polygons"),
    ("abc", "neither polygons nor a run-length code"),
    ({"counts": [6, 2, 16]}, r"a run-length code of size None in a picture of \[4, 6\]"),
    ({"counts": [6, 2, 17], "size": [5, 5]}, r"of size \[5, 5\] in a picture of \[4, 6\]"),
    ({"counts": [6, 2], "size": [4, 6]}, "does not cover its picture"),
    ({"counts": [-1, 25], "size": [4, 6]}, "does not cover its picture"),
    ({"counts": "abc", "size": [4, 6]}, r"damaged \(RLE string is malformed"),
    ({"size": [4, 6]}, "a run-length code without counts"),
]


@pytest.mark.parametrize(("segmentation", "fault"), BAD_MASKS)
def test_damaged_masks__are_named_at_once(coco: Path, segmentation: Any, fault: str) -> None:
    write(coco, CONTENT | {"annotations": [annotation(9, 42, 3, segmentation=segmentation)]})
    with pytest.raises(
        ValueError, match=f"instances_val2017.json: the mask of annotation 9 is .*{fault}"
    ):
        CocoInstances(coco, "val")
    assert len(CocoInstances(coco, "val", masks=False).item(0, masks=False).boxes) == 1


def test_damaged_masks__a_compressed_code_too_short_is_named_when_read(coco: Path) -> None:
    short = {"counts": "62", "size": [4, 6]}
    write(coco, CONTENT | {"annotations": [annotation(9, 42, 3, segmentation=short)]})
    with pytest.raises(
        ValueError,
        match=r"val2017.json: the mask of annotation 9 is damaged .*8 pixels but expected 24",
    ):
        CocoInstances(coco, "val").item(0, masks=True)


@pytest.mark.parametrize("box", [[1, 2, 3], None, [1, 2, "3", 4], [1, 2, float("nan"), 4]])
def test_boxes__of_another_form_are_named(coco: Path, box: object) -> None:
    write(coco, CONTENT | {"annotations": [annotation(8, 42, 3, bbox=box)]})
    with pytest.raises(ValueError, match="annotation 8 has bbox .* expected .left, top, width"):
        CocoInstances(coco, "val")


def test_sizes__of_no_pixel_are_named(coco: Path) -> None:
    write(coco, CONTENT | {"images": [{**CONTENT["images"][0], "width": 0}], "annotations": []})
    with pytest.raises(ValueError, match="image 42: height and width must be positive whole"):
        CocoInstances(coco, "val")


def test_crowds__need_not_be_marked(coco: Path) -> None:
    write(coco, lacking("annotations", "iscrowd"))
    (thing,) = CocoInstances(coco, "val").ground_truth([1])["annotations"]
    assert thing["iscrowd"] == 0  # scoring masks looks for it


def test_empty_split__is_an_error(coco: Path) -> None:
    write(coco, CONTENT | {"images": [], "annotations": []})
    with pytest.raises(ValueError, match="instances_val2017.json holds no picture"):
        CocoInstances(coco, "val")


@pytest.mark.data
def test_the_real_set(shared_data: Path) -> None:
    data = CocoInstances(shared_data / "coco-mini", "val")
    assert len(data) == 129 and len(data.classes) == 80 and data.category_ids[-1] == 90
    assert data.classes[0] == "person" and data.classes[-1] == "toothbrush"
    everything = data.ground_truth(range(len(data)))["annotations"]
    assert len(everything) == 1196 and sum(a["iscrowd"] for a in everything) == 16
    item = data.item(0, masks=True)
    assert item.masks is not None
    for box, mask in zip(item.boxes, item.masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, around, atol=2)
