from __future__ import annotations

import numpy as np
import pytest

from cliptex.per_image import save_per_image
from cliptex.probes.ap import coco_ap, coco_matches
from cliptex.report.bootstrap import compare_images, resampled_ap

IMAGES, CATEGORIES = 12, 3


def scenes(seed: int, noise: float) -> tuple[dict, list[dict]]:
    """COCO's truth of random boxes (some crowds), and detections near most of them."""
    rng = np.random.default_rng(seed)
    guesses = np.random.default_rng(round(noise * 10))
    images = [{"id": 10 + i, "height": 100, "width": 100} for i in range(IMAGES)]
    categories = [{"id": 1 + c, "name": str(c)} for c in range(CATEGORIES)]
    annotations, found = [], []
    for image in images:
        for _ in range(rng.integers(0, 5)):
            left, top, width, height = (*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2))
            entry = {"image_id": image["id"], "category_id": int(rng.integers(1, 4))}
            box = [float(v) for v in (left, top, width, height)]
            crowd = int(rng.random() < 0.1)
            size = {"bbox": box, "area": width * height, "iscrowd": crowd}
            annotations.append({**entry, **size, "id": len(annotations) + 1})
            moved = [float(v) for v in np.array(box) + guesses.normal(0, noise, 4)]
            found.append({**entry, "bbox": moved, "score": float(guesses.random())})
            if guesses.random() < 0.4:
                found.append({**found[-1], "score": float(guesses.random()), "category_id": 1})
    return {"images": images, "annotations": annotations, "categories": categories}, found


def drawn(truth: dict, found: list[dict], picks: np.ndarray) -> tuple[dict, list[dict]]:
    """The same for images drawn with replacement, each copy an image of its own."""
    images, annotations, detections = [], [], []
    for number, pick in enumerate(picks.tolist(), start=1000):
        old = truth["images"][pick]["id"]
        images.append({**truth["images"][pick], "id": number})
        for entry in truth["annotations"]:
            if entry["image_id"] == old:
                new = {"image_id": number, "id": len(annotations) + 1}
                annotations.append({**entry, **new})
        detections += [{**d, "image_id": number} for d in found if d["image_id"] == old]
    return {**truth, "images": images, "annotations": annotations}, detections


@pytest.mark.parametrize("seed", range(4))
def test_resampled_ap__of_the_sample_itself_is_cocos(seed):
    truth, found = scenes(seed, 2.0)
    matches = coco_matches(truth, found, "bbox")
    expected = coco_ap(truth, found, ("bbox",))["ap_box"]
    assert resampled_ap(matches, np.ones((1, IMAGES), int)) == pytest.approx([expected])


def test_resampled_ap__is_cocos_of_the_drawn_images():
    truth, found = scenes(5, 2.0)
    matches = coco_matches(truth, found, "bbox")
    picks = np.random.default_rng(1).integers(0, IMAGES, (6, IMAGES))
    weights = np.stack([np.bincount(row, minlength=IMAGES) for row in picks])
    expected = [coco_ap(*drawn(truth, found, row), ("bbox",))["ap_box"] for row in picks]
    assert resampled_ap(matches, weights) == pytest.approx(expected)


def test_resampled_ap__a_draw_without_objects_has_no_value():
    truth, found = scenes(0, 2.0)
    matches = coco_matches(truth, found, "bbox")
    empty = matches["objects"].sum(1) == 0
    assert empty.any(), "the scene needs an empty image"
    assert np.isnan(resampled_ap(matches, empty[None].astype(int))).all()


def test_compare_images__average_precision(make_row, tmp_path):
    rows = []
    for model, noise in (("cliptex", 1.0), ("clip-ft", 4.0)):
        truth, found = scenes(2, noise)
        value = coco_ap(truth, found, ("bbox",))["ap_box"]
        other = {"task": "detection", "metric": "ap_box", "better": "higher", "probe": "ssd"}
        rows.append(make_row(model, value, **other))
        save_per_image(tmp_path, rows[-1], coco_matches(truth, found, "bbox"))
    (result,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert result.n == IMAGES and result.difference is not None
    assert result.difference.mean == pytest.approx(rows[0].value - rows[1].value)
    low, high = result.difference.low, result.difference.high
    assert low is not None and high is not None and 0 < low < result.difference.mean < high


def test_compare_images__other_objects_are_refused(make_row, tmp_path):
    rows = [make_row(model, 50.0, task="detection") for model in ("cliptex", "clip-ft")]
    for row, seed in zip(rows, (2, 3), strict=True):
        save_per_image(tmp_path, row, coco_matches(*scenes(seed, 1.0), "bbox"))
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None and "not scored on the same objects" in found.problem
