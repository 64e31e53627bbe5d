"""COCO's average precision of boxes and masks, and the matches of detections that it is made of.

The numbers are those of faster-coco-eval; `cliptex.report.bootstrap` turns matches into
intervals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Literal

import numpy as np

from cliptex.datasets.coco import mask_code

Overlap = Literal["bbox", "segm"]
SUFFIX: dict[Overlap, str] = {"bbox": "box", "segm": "mask"}
STATISTICS = ("ap", "ap50", "ap75", "aps", "apm", "apl")
"""COCO's first six numbers: mean over overlaps .5:.05:.95, at .5, at .75, and by size of object."""
PROTOCOL = (
    "COCO: 101 recalls, overlaps 0.5:0.05:0.95, 100 detections per image, crowds ignored; small "
    "objects below 32^2, large above 96^2 pixels of the original image"
)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
MOST = 100  # detections of one category in one image
Entries = list[dict[str, Any]]


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


def coco_matches(
    truth: dict[str, Entries], detections: Sequence[dict[str, Any]], overlap: Overlap
) -> dict[str, np.ndarray]:
    """COCO's assignment of detections to objects, at the overlaps .5:.05:.95 (T = 10).

    Per image and category, detections choose in the order of their scores, each the free object it
    overlaps most; what only meets a crowd is ignored. Arguments are those of `coco_ap`.

    Returns:
        `image` and `category` (M,) int32, positions in the truth's lists; `score` (M,) float64;
        `matched` and `ignored` (M, T) bool; `objects` (N, K) int32, counted without crowds.
    """
    images = {int(image["id"]): row for row, image in enumerate(truth["images"])}
    sizes = {int(image["id"]): (image["height"], image["width"]) for image in truth["images"]}
    categories = {int(c["id"]): column for column, c in enumerate(truth["categories"])}
    objects, found = _by_cell(truth["annotations"]), _by_cell(detections)
    counts = np.zeros((len(images), len(categories)), np.int32)
    for (image, category), entries in objects.items():
        single = sum(not entry.get("iscrowd", 0) for entry in entries)
        counts[images[image], categories[category]] = single
    parts: list[tuple[np.ndarray, ...]] = []
    for cell in sorted(found):  # equal scores rank by image id, as in COCO's code
        ranked = sorted(found[cell], key=lambda entry: -entry["score"])[:MOST]
        matched, ignored = _assigned(ranked, objects.get(cell, []), overlap, sizes[cell[0]])
        places = np.full((2, len(ranked)), [[images[cell[0]]], [categories[cell[1]]]], np.int32)
        scores = np.array([entry["score"] for entry in ranked], np.float64)
        parts.append((*places, scores, matched, ignored))
    names = ("image", "category", "score", "matched", "ignored")
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)] if parts else _none()
    return {**dict(zip(names, joined, strict=True)), "objects": counts}


def _by_cell(entries: Sequence[dict[str, Any]]) -> defaultdict[tuple[int, int], Entries]:
    """Entries by image and category id."""
    cells: defaultdict[tuple[int, int], Entries] = defaultdict(list)
    for entry in entries:
        cells[int(entry["image_id"]), int(entry["category_id"])].append(entry)
    return cells


def _assigned(
    ranked: Entries, objects: Entries, overlap: Overlap, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Matched and ignored (D, T) of one image and category."""
    matched = np.zeros((len(ranked), len(THRESHOLDS)), bool)
    ignored = np.zeros_like(matched)
    if not objects:
        return matched, ignored
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in objects])
    shares = _shares(ranked, objects, crowd, overlap, size)  # (D, G)
    free = np.ones((len(THRESHOLDS), len(objects)), bool)
    for row, share in enumerate(shares):
        enough = share >= THRESHOLDS[:, None]  # (T, G)
        single = np.where(enough & free & ~crowd, share, -1.0)
        best = single.shape[1] - 1 - single[:, ::-1].argmax(1)  # of equal ones the last
        hit = single.max(1) >= 0
        free[hit, best[hit]] = False
        ignored[row] = ~hit & (enough & crowd).any(1)
        matched[row] = hit | ignored[row]
    return matched, ignored


def _shares(
    ranked: Entries, objects: Entries, crowd: np.ndarray, overlap: Overlap, size: tuple[int, int]
) -> np.ndarray:
    """Intersection over union (D, G); over the detection's area alone where it is a crowd's."""
    from faster_coco_eval.core import mask as codes

    def regions(entries: Entries) -> Any:
        if overlap == "bbox":
            return [entry["bbox"] for entry in entries]
        return [mask_code(entry["segmentation"], *size) for entry in entries]

    flags = crowd.astype(int).tolist()
    shares = codes.iou(regions(ranked), regions(objects), flags)
    return np.asarray(shares).reshape(len(ranked), len(objects))


def _none() -> list[np.ndarray]:
    flags = np.zeros((0, len(THRESHOLDS)), bool)
    return [np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), flags, flags]
