"""COCO's average precision of boxes and masks, by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Literal

import numpy as np

Overlap = Literal["bbox", "segm"]
SUFFIX: dict[Overlap, str] = {"bbox": "box", "segm": "mask"}
STATISTICS = ("ap", "ap50", "ap75", "aps", "apm", "apl")
"""COCO's first six numbers: mean over overlaps .5:.05:.95, at .5, at .75, and by size of object."""
PROTOCOL = (
    "COCO: 101 recalls, overlaps 0.5:0.05:0.95, 100 detections per image, crowds ignored; small "
    "objects below 32^2, large above 96^2 pixels of the original image"
)


def coco_ap(
    truth: dict[str, list[dict[str, Any]]],
    detections: Sequence[dict[str, Any]],
    overlaps: Sequence[Overlap] = ("bbox", "segm"),
) -> dict[str, float]:
    """`ap_box`, `ap50_box`, ..., `apl_mask`: 0-100, NaN where no object of that size exists.

    Args:
        truth: COCO's dictionary of the scored images, crowds included.
        detections: COCO's results: image_id, category_id, bbox (left, top, width, height), score,
            and for masks `segmentation` as a run-length code.
        overlaps: measured between boxes, masks or both.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # 0.2 s to import

    scores: dict[str, float] = {}
    if not detections:  # the library wants some; every recall is 0 where there is an object
        areas = [a["area"] for a in truth["annotations"] if not a.get("iscrowd", 0)]
        for overlap in overlaps:
            scores |= _named(_nothing_found(areas), overlap)
        return scores
    with redirect_stdout(StringIO()):
        reference = COCO(_numbered(truth))
        for overlap in overlaps:
            # A result's area must be its mask's where masks are scored: the library takes the
            # box's where there is a box.
            left_out = "bbox" if overlap == "segm" else "segmentation"
            results = [{k: v for k, v in d.items() if k != left_out} for d in detections]
            found = reference.loadRes(results)
            run = COCOeval_faster(reference, found, iouType=overlap)
            run.run()
            values = [value if value >= 0 else float("nan") for value in run.stats[:6]]
            scores |= _named(values, overlap)
    return scores


def _numbered(truth: dict[str, Any]) -> dict[str, Any]:
    """`truth` whose annotations have ids of their own from 1 on: to the library 0 means "no match",
    and of two with one id it sees one."""
    annotations = [{**a, "id": number} for number, a in enumerate(truth["annotations"], start=1)]
    return {**truth, "annotations": annotations}


def _named(values: Sequence[float], overlap: Overlap) -> dict[str, float]:
    names = [f"{statistic}_{SUFFIX[overlap]}" for statistic in STATISTICS]
    return {name: 100 * float(value) for name, value in zip(names, values, strict=True)}


def _nothing_found(areas: Sequence[float]) -> list[float]:
    values = np.array(areas)
    ranges = [(0, np.inf)] * 3 + [(0, 32**2), (32**2, 96**2), (96**2, np.inf)]
    return [
        0.0 if ((values >= low) & (values <= high)).any() else float("nan") for low, high in ranges
    ]
