"""COCO's assignments by hand, and AP made of them against faster-coco-eval's."""

from __future__ import annotations

import numpy as np
import pytest

from cliptex.probes.detection import coco_ap, coco_matches
from cliptex.probes.detection.ap import SUFFIX
from cliptex.report.bootstrap import resampled_ap

from .test_ap import random_set


def thing(number: int, box: list[float], crowd: int = 0) -> dict:
    area = box[2] * box[3]
    about = {"id": number, "image_id": 7, "category_id": 3, "iscrowd": crowd}
    return {**about, "bbox": box, "area": area}


def result(box: list[float], score: float) -> dict:
    return {"image_id": 7, "category_id": 3, "bbox": box, "score": score}


def truth_of(*things: dict) -> dict:
    return {
        "images": [{"id": 9, "height": 50, "width": 50}, {"id": 7, "height": 50, "width": 50}],
        "annotations": list(things),
        "categories": [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}],
    }


def test_matches__of_two_detections_of_one_object() -> None:
    """The better-scored one takes the object where it reaches the overlap (0.6), then the other."""
    truth = truth_of(thing(1, [0, 0, 10, 10]))
    found = coco_matches(truth, [result([0, 0, 10, 10], 0.3), result([0, 0, 10, 6], 0.9)], "bbox")
    assert found["score"].tolist() == [0.9, 0.3]
    assert found["image"].tolist() == [1, 1] and found["category"].tolist() == [1, 1]
    # overlaps .5, .55, .6 go to the first; from .65 on it reaches none
    assert found["matched"][0].tolist() == [True] * 3 + [False] * 7
    assert found["matched"][1].tolist() == [False] * 3 + [True] * 7
    assert not found["ignored"].any()
    assert found["objects"].tolist() == [[0, 0], [0, 1]]


def test_matches__ignore_what_only_meets_a_crowd() -> None:
    truth = truth_of(thing(1, [0, 0, 40, 40], crowd=1), thing(2, [0, 0, 10, 10]))
    boxes = [[0, 0, 10, 10], [20, 20, 10, 10], [20, 20, 10, 10], [45, 45, 4, 4]]
    found = coco_matches(truth, [result(b, 0.9 - k / 10) for k, b in enumerate(boxes)], "bbox")
    assert found["ignored"][:, 0].tolist() == [False, True, True, False]
    assert (found["matched"] & ~found["ignored"])[:, 0].tolist() == [True, False, False, False]
    assert found["objects"].sum() == 1


@pytest.mark.parametrize("overlap", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_matches__give_the_library_s_average(seed: int, overlap) -> None:
    truth, results = random_set(seed)
    truth["images"] = truth["images"][::-1]
    found = coco_matches(truth, results, overlap)
    (ours,) = resampled_ap(found, np.ones((1, len(truth["images"]))))
    assert ours == pytest.approx(coco_ap(truth, results, [overlap])[f"ap_{SUFFIX[overlap]}"])
    assert 0 < ours < 100


def test_matches__of_nothing() -> None:
    found = coco_matches(truth_of(thing(1, [0, 0, 10, 10])), [], "bbox")
    assert found["matched"].shape == (0, 10) and found["score"].shape == (0,)
    assert resampled_ap(found, np.ones((1, 2))).tolist() == [0.0]
