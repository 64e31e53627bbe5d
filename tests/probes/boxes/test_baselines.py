"""The mean object of each class, worked by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from cliptex.probes.baselines import MEAN, in_place_of, run_detection_baseline
from cliptex.results import Result

SQUARE, WIDE = (100, 100), (200, 100)  # width, height


def box(image: int, category: int, bbox: list[float], crowd: int = 0) -> dict[str, Any]:
    left, top, width, height = bbox
    right, bottom = left + width, top + height
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    return {
        "image_id": image,
        "category_id": category,
        "bbox": bbox,
        "area": width * height,
        "iscrowd": crowd,
        "segmentation": outline,
    }


@dataclass
class Boxes:
    """Annotations without pictures: the control must not look at any."""

    sizes: list[tuple[int, int]]
    boxes: list[dict[str, Any]]
    name: str = "boxes"
    classes: tuple[str, ...] = ("a", "b")
    category_ids: tuple[int, ...] = (3, 7)
    image_ids: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.sizes)

    def ground_truth(self, indices: Any) -> dict[str, list[dict[str, Any]]]:
        images = [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(self.sizes)]
        annotations = [{"id": i + 1, **one} for i, one in enumerate(self.boxes)]
        categories = [{"id": i, "name": n} for i, n in zip((3, 7), "ab", strict=True)]
        return {
            "images": [images[i] for i in indices],
            "annotations": annotations,
            "categories": categories,
        }

    def item(self, index: int, *, masks: bool) -> Any:
        raise AssertionError("a picture was read")

    with_objects: Any = None


def value(rows: list[Result], metric: str) -> float:
    return next(row.value for row in rows if row.metric == metric)


def test_baseline__is_perfect_where_every_object_is_the_mean() -> None:
    # Relative to their pictures, class 3's boxes are (0.1, 0.1, 0.5, 0.4) and (0.3, 0.1, 0.3, 0.6):
    # the mean is (0.2, 0.1, 0.4, 0.5). The crowd counts for nothing.
    boxes = [box(0, 3, [10, 10, 50, 40]), box(1, 3, [60, 10, 60, 60])]
    boxes += [box(0, 3, [0, 0, 100, 100], crowd=1)]
    train = Boxes([SQUARE, WIDE], boxes)
    test = Boxes([SQUARE, WIDE], [box(0, 3, [20, 10, 40, 50]), box(1, 3, [40, 10, 80, 50])])
    rows = run_detection_baseline(train, test)
    assert value(rows, "ap_box") == pytest.approx(100)
    assert value(rows, "ap_mask") == pytest.approx(100)
    assert {(row.model, row.probe, row.n) for row in rows} == {(MEAN, None, 2)}


def test_baseline__the_commoner_class_is_surer_and_a_missed_overlap_counts() -> None:
    # IoU of the mean box with (20, 10, 40, 40) is 0.8: hits at 0.5 to 0.8, 7 of 10 overlaps
    # (0.8 itself within floats is left to the library, hence the two values).
    train = Boxes([SQUARE], [box(0, 3, [20, 10, 40, 50])])
    test = Boxes([SQUARE], [box(0, 3, [20, 10, 40, 40])])
    rows = run_detection_baseline(train, test)
    assert value(rows, "ap50_box") == pytest.approx(100)
    assert min(abs(value(rows, "ap_box") - v) for v in (60, 70)) < 1e-6
    assert value(rows, "ap_box") < 100


def test_baseline__stands_in_the_columns_of_the_probes() -> None:
    train = Boxes([SQUARE], [box(0, 3, [20, 10, 40, 50])])
    rows = run_detection_baseline(train, train)
    protocol = {"recipe": "small", "resolution": 64}
    probe = rows[0].model_copy(
        update={"model": "m", "probe": "ssd", "metric": "ap_box", "protocol": protocol}
    )
    (placed,) = in_place_of(rows, [probe])
    assert (placed.model, placed.probe, placed.metric) == (MEAN, "ssd", "ap_box")
    assert placed.protocol["recipe"] == "small"
