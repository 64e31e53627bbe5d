"""COCO's average precision over images drawn with replacement, from matches made once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cliptex.metrics import mean_of_present

RECALLS = np.linspace(0, 1, 101)


def resampled_ap(found: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """AP in % of each draw, (D,); `weights` (D, N) say how often each image is drawn.

    Matches do not reach beyond an image, so drawing images only reweights them.

    Args:
        found: `image` (M,) and `category` (M,) of every detection, its `score` (M,), whether it is
            `matched` and whether it is `ignored` (M, T) at each of T overlaps, and the `objects`
            (N, K) that count per image and category. AP is the mean over overlaps and over the
            categories with an object; NaN for a draw without any.
    """
    objects = weights @ found["objects"].astype(np.float64)  # (D, K)
    scores = np.full((len(weights), objects.shape[1]), np.nan)
    for category in np.flatnonzero(found["objects"].any(axis=0)):
        rows = np.flatnonzero(found["category"] == category)
        rows = rows[np.argsort(-found["score"][rows], kind="stable")]
        drawn = weights[:, found["image"][rows]].astype(np.float64)  # (D, m)
        counted = ~found["ignored"][rows]  # (m, T)
        hits = found["matched"][rows] & counted
        scores[:, category] = np.mean(
            [
                _precision(drawn * hit, drawn * count, objects[:, category])
                for hit, count in zip(hits.T, counted.T, strict=True)
            ],
            axis=0,
        )
    return 100 * mean_of_present(scores)


def _precision(hits: np.ndarray, counted: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Mean over `RECALLS` of the interpolated precision; (D, m), (D, m), (D,) -> (D,)."""
    true, found = hits.cumsum(axis=1), counted.cumsum(axis=1)
    precision = true / np.maximum(found, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.full(len(hits), np.nan)
    for draw in np.flatnonzero(objects > 0):
        first = np.searchsorted(true[draw] / objects[draw], RECALLS, side="left")
        reached = first[first < precision.shape[1]]
        result[draw] = precision[draw, reached].sum() / len(RECALLS)
    return result
