"""A control that never looks at a picture: the mean object of every class."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from cliptex.datasets.coco import mask_code
from cliptex.datasets.protocol import DetectionDataset
from cliptex.probes.controls import MEAN
from cliptex.probes.detection.ap import PROTOCOL, coco_ap
from cliptex.results import Result


def run_detection_baseline(train: DetectionDataset, test: DetectionDataset) -> list[Result]:
    """Score on `test` one object of each class of `train`, the same in all pictures; probe None.

    It has the mean centre and size of the class's boxes, relative to their pictures', is filled
    as a mask, and is as sure as the class is common (its share of all objects). Masks are scored
    where every object of `test` has one.
    """
    means = _means(train.ground_truth(range(len(train))))
    truth = test.ground_truth(range(len(test)))
    found = [entry for image in truth["images"] for entry in _entries(image, means)]
    masked = all(entry.get("segmentation") for entry in truth["annotations"])
    about = {"task": "detection", "dataset": test.name, "probe": None, "n": len(test), "seed": 0}
    prediction = "the mean box of each class, filled"
    protocol: dict[str, object] = {"ap": PROTOCOL, "prediction": prediction}
    return [
        Result(model=MEAN, metric=name, value=value, better="higher", protocol=protocol, **about)
        for name, value in coco_ap(truth, found, ("bbox", "segm") if masked else ("bbox",)).items()
        if not math.isnan(value)  # no object of that size
    ]


def _means(truth: Mapping[str, list[dict[str, Any]]]) -> dict[int, tuple[np.ndarray, float]]:
    """Category id -> (left, top, width, height) in shares of a picture (4,), share of objects."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    boxes: dict[int, list[np.ndarray]] = defaultdict(list)
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd", 0):
            size = np.array(sizes[annotation["image_id"]] * 2, np.float64)  # (4,)
            boxes[annotation["category_id"]].append(np.array(annotation["bbox"]) / size)
    total = sum(map(len, boxes.values()))
    # The means of left and width together are those of the centre and the width.
    return {number: (np.mean(one, axis=0), len(one) / total) for number, one in boxes.items()}


def _entries(
    image: Mapping[str, Any], means: Mapping[int, tuple[np.ndarray, float]]
) -> list[dict[str, Any]]:
    """COCO's results for one picture."""
    width, height = image["width"], image["height"]
    entries = []
    for number, (mean, score) in means.items():
        left, top, wide, high = (mean * np.array([width, height] * 2)).tolist()
        right, bottom = left + wide, top + high
        outline = [[left, top, right, top, right, bottom, left, bottom]]
        entries.append(
            {
                "image_id": image["id"],
                "category_id": number,
                "bbox": [left, top, wide, high],
                "score": score,
                "segmentation": mask_code(outline, height, width),
            }
        )
    return entries
