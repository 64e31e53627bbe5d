"""Average precision against pycocotools, and against numbers worked by hand."""

from __future__ import annotations

import copy
import math
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools import mask as codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cliptex.probes.ap import STATISTICS, SUFFIX, coco_ap, coco_matches
from cliptex.report.bootstrap import resampled_ap

SIZE = 150


def plane(box) -> np.ndarray:
    left, top, width, height = (int(v) for v in box)
    out = np.zeros((SIZE, SIZE), np.uint8, order="F")
    out[top : top + height, left : left + width] = 1
    return out


@pytest.mark.parametrize("ids", [range(3), [7, 7, 7], ["a", "b", "c"]])
def test_ap__whatever_the_annotations_ids_are(ids) -> None:
    boxes = [[0, 0, 20, 20], [50, 0, 40, 40], [0, 60, 70, 70]]
    truth = {
        "images": [{"id": 1, "height": SIZE, "width": SIZE}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": 0}
            | {"area": box[2] * box[3]}
            for number, box in zip(ids, boxes, strict=True)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    assert coco_ap(truth, found, ("bbox",))["ap_box"] == pytest.approx(100)
    assert [a["id"] for a in truth["annotations"]] == list(ids), "left as they were"


def encoded(mask: np.ndarray) -> dict:
    code = codes.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def random_set(seed: int) -> tuple[dict, list[dict]]:
    """Objects of all sizes, some crowds, and results that are shifted, doubled, wrong or lost."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, 9):
        for _ in range(rng.integers(0, 7)):
            box = [*rng.integers(0, 40, 2), *rng.choice([9, 20, 50, 105], 2)]
            box = [int(v) for v in box]
            category = int(rng.choice([2, 5, 11]))
            mask = plane(box)
            mask[::7] = 0  # so that boxes and masks have other overlaps
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": int(mask.sum()),
                    "segmentation": encoded(mask),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 3)):
                moved = [max(0, int(v + rng.integers(-4, 5))) for v in box[:2]] + box[2:]
                wrong = rng.random() < 0.2
                results.append(
                    {
                        "image_id": image,
                        "category_id": 2 if wrong else category,
                        "bbox": [float(v) for v in moved],
                        "score": float(rng.random()),
                        "segmentation": encoded(plane(moved)),
                    }
                )
    images = [{"id": image, "height": SIZE, "width": SIZE} for image in range(1, 9)]
    categories = [{"id": number, "name": str(number)} for number in (2, 5, 11)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parity_with_pycocotools(seed: int) -> None:
    truth, results = random_set(seed)
    ours = coco_ap(truth, results)
    for overlap, suffix in (("bbox", "box"), ("segm", "mask")):
        with redirect_stdout(StringIO()):
            reference = COCO()
            reference.dataset = copy.deepcopy(truth)
            reference.createIndex()
            kept = copy.deepcopy(results)
            for result in kept:  # as published numbers are made: a mask's area is its own
                result.pop("bbox" if overlap == "segm" else "segmentation")
            run = COCOeval(reference, reference.loadRes(kept), overlap)
            run.evaluate()
            run.accumulate()
            run.summarize()
        expected = [100 * v if v >= 0 else math.nan for v in run.stats[:6]]
        values = [ours[f"{name}_{suffix}"] for name in STATISTICS]
        np.testing.assert_allclose(values, expected, atol=1e-6)
        assert 0 < values[0] < 100


def one(box, detections) -> dict[str, float]:
    truth = {
        "images": [{"id": 1, "height": SIZE, "width": SIZE}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
        ],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for b, s in detections]
    return coco_ap(truth, results, ["bbox"])


def test_by_hand() -> None:
    # overlap 80 * 100 / 100 * 100 = 0.8: found at .5, .55, ..., .8, so 7 of 10 thresholds
    scores = one([0, 0, 100, 100], [([0, 0, 80, 100], 0.9)])
    assert scores["ap_box"] == pytest.approx(70)
    assert scores["ap50_box"] == scores["ap75_box"] == pytest.approx(100)
    assert scores["apl_box"] == pytest.approx(70) and math.isnan(scores["aps_box"])
    # a better-scored miss before it halves the precision at every recall
    scores = one([0, 0, 100, 100], [([0, 0, 100, 100], 0.5), ([0, 100, 40, 40], 0.9)])
    assert scores["ap_box"] == pytest.approx(50)


def test_no_detections__is_zero_where_there_are_objects() -> None:
    scores = one([0, 0, 100, 100], [])
    assert scores["ap_box"] == scores["apl_box"] == 0
    assert math.isnan(scores["aps_box"]) and math.isnan(scores["apm_box"])
    truth, results = random_set(3)
    assert set(coco_ap(truth, [])) == set(coco_ap(truth, results))


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
