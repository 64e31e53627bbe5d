"""Metrics of the downstream tasks, in numpy; every percentage is in 0-100.

Each class streams: `update` per image or batch, read the numbers at the end. Nothing here knows
datasets, models or probes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEPTH_RANGE = (0.0, 10.0)  # metres; Lasinger's NYUv2 evaluation keeps 0 < depth < 10
ANGLES = (5.0, 7.5, 11.25, 22.5, 30.0)  # degrees; Bae et al. 2021, Table 1
_BINS_PER_DEGREE = 1000


class ConfusionMatrix:
    """Global confusion matrix over all pixels of all images, at the ground truth's size.

    IoU of class c is TP / (TP + FP + FN) over the whole set (PASCAL VOC's definition, not a mean
    over images). A class without a single ground-truth pixel is *absent*: its IoU is NaN and it
    is left out of the mean, whatever was predicted, so that the classes of a mean depend on the
    data alone and two models are compared over the same ones (false positives of an absent class
    still cost the classes they cover).
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore = ignore
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)  # [truth, prediction]

    def update(self, prediction: NDArray, truth: NDArray) -> NDArray[np.int64]:
        """Add pixels; `prediction` and `truth` are integers of one shape.

        Returns the (C, C) counts of these pixels alone (rows truth, columns prediction). Raises
        ValueError where shapes differ or an id is outside [0, C) and not the ignore index.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction is {prediction.shape}, ground truth is {truth.shape}")
        keep = truth != self.ignore
        true, predicted = truth[keep].astype(np.int64), prediction[keep].astype(np.int64)
        for name, ids in (("ground truth", true), ("prediction", predicted)):
            if ids.size and (ids.min() < 0 or ids.max() >= self.num_classes):
                raise ValueError(
                    f"{name} holds class ids {ids.min()}..{ids.max()}, expected "
                    f"0..{self.num_classes - 1} (ignore {self.ignore}); check the class list"
                )
        size = self.num_classes
        counts = np.bincount(true * size + predicted, minlength=size * size).reshape(size, size)
        self.counts += counts
        return counts

    def iou(self) -> NDArray[np.float64]:
        """Per-class IoU in percent, (C,) float64; NaN for classes absent from the ground truth."""
        return iou_from_counts(*counts_of(self.counts))

    def miou(self, classes: Sequence[int] | None = None) -> float:
        """Mean IoU in percent over `classes` (default all) that are present; NaN if none is."""
        iou = self.iou() if classes is None else self.iou()[list(classes)]
        present = iou[~np.isnan(iou)]
        return float(present.mean()) if present.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Percentage of valid pixels that are right."""
        total = self.counts.sum()
        return float(100 * np.trace(self.counts) / total) if total else float("nan")


def counts_of(confusion: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Intersections, prediction areas and truth areas, each (..., C), of (..., C, C) counts."""
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(-2), confusion.sum(-1)


def iou_from_counts(
    intersection: NDArray, predicted: NDArray, truth: NDArray
) -> NDArray[np.float64]:
    """IoU in percent from areas of one shape; NaN where `truth` is 0."""
    union = predicted + truth - intersection
    iou = np.full(union.shape, np.nan)
    np.divide(100.0 * intersection, union, out=iou, where=truth > 0)
    return iou


def align_disparity(
    prediction: NDArray, depth: NDArray, valid: NDArray[np.bool_]
) -> tuple[float, float]:
    """Least-squares (scale, shift) with scale * prediction + shift ~ 1 / depth on valid pixels.

    Ranftl et al. 2020, eq. (4), solved in float64. A constant prediction gives scale 0 and the
    mean disparity; no valid pixel gives (0, NaN).
    """
    p = prediction[valid].astype(np.float64)
    y = 1.0 / depth[valid].astype(np.float64)
    if p.size == 0:
        return 0.0, float("nan")
    p_mean, y_mean = p.mean(), y.mean()
    centred = p - p_mean
    variance = np.mean(centred**2)
    if variance <= 1e-12 * max(p_mean**2, 1e-300):
        return 0.0, float(y_mean)
    scale = float(np.mean(centred * (y - y_mean)) / variance)
    return scale, float(y_mean - scale * p_mean)


def depth_mask(depth: NDArray, bounds: tuple[float, float] = DEPTH_RANGE) -> NDArray[np.bool_]:
    """Pixels with a finite depth strictly inside `bounds` (metres), (H, W) bool."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(depth) & (depth > bounds[0]) & (depth < bounds[1])


def absrel(
    prediction: NDArray,
    depth: NDArray,
    *,
    valid: NDArray[np.bool_] | None = None,
    bounds: tuple[float, float] = DEPTH_RANGE,
) -> float:
    """Mean |d' - d| / d of one image after alignment in disparity; a fraction, NaN if no pixel.

    `prediction` (H, W) is any disparity, `depth` (H, W) metres. Lasinger's protocol: pixels with
    bounds[0] < d < bounds[1]; scale and shift per image by least squares in disparity; aligned
    disparity clamped to at least 1 / bounds[1]; d' = 1 / disparity. `valid` narrows the mask. The
    score of a set is the mean over its images.
    """
    mask = depth_mask(depth, bounds)
    if valid is not None:
        mask &= valid
    if not mask.any():
        return float("nan")
    scale, shift = align_disparity(prediction, depth, mask)
    disparity = np.maximum(scale * prediction[mask].astype(np.float64) + shift, 1 / bounds[1])
    true = depth[mask].astype(np.float64)
    return float(np.mean(np.abs(1 / disparity - true) / true))


class AngularErrors:
    """Angles between predicted and true normals, pooled over all valid pixels of all images.

    Mean, RMSE and the shares below a threshold are exact; the median is read from a histogram
    with bins of 0.001 degree (error at most half a bin), so memory does not grow.
    """

    def __init__(self, thresholds: Sequence[float] = ANGLES) -> None:
        self.count = 0
        self._sum = self._squares = 0.0
        self._below = {float(t): 0 for t in thresholds}
        self._histogram = np.zeros(180 * _BINS_PER_DEGREE + 1, dtype=np.int64)

    def update(
        self, prediction: NDArray, truth: NDArray, valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Add pixels; `prediction` of any length and `truth` unit or (0, 0, 0), both (..., 3).

        Pixels whose truth is (0, 0, 0) are invalid; `valid` (...) narrows further. Returns the
        angles in degrees of the valid pixels.
        """
        angles = angular_error(prediction, truth, valid)
        self.count += angles.size
        self._sum += float(angles.sum())
        self._squares += float((angles**2).sum())
        for threshold in self._below:
            self._below[threshold] += int((angles < threshold).sum())
        bins = (angles * _BINS_PER_DEGREE).astype(np.int64)
        self._histogram += np.bincount(bins, minlength=self._histogram.size)
        return angles

    def mean(self) -> float:
        """Mean angle in degrees."""
        return self._sum / self.count if self.count else float("nan")

    def rmse(self) -> float:
        """Root of the mean squared angle, in degrees."""
        return float(np.sqrt(self._squares / self.count)) if self.count else float("nan")

    def median(self) -> float:
        """Median angle in degrees: mean of the two middle ones where the count is even."""
        if not self.count:
            return float("nan")
        cumulative = np.cumsum(self._histogram)
        middle = [(self.count - 1) // 2 + 1, self.count // 2 + 1]
        bins = np.searchsorted(cumulative, middle, side="left")
        return float((bins + 0.5).mean() / _BINS_PER_DEGREE)

    def below(self, degrees: float) -> float:
        """Percentage of pixels with an angle strictly below one of the thresholds."""
        if float(degrees) not in self._below:
            raise ValueError(f"{degrees} is not among the thresholds {sorted(self._below)}")
        return 100 * self._below[float(degrees)] / self.count if self.count else float("nan")


def angular_error(
    prediction: NDArray, truth: NDArray, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Angles in degrees, (M,) float64, of the pixels whose truth is not (0, 0, 0) and `valid`.

    Both (..., 3); lengths do not matter. A zero prediction counts as 90 degrees.
    """
    mask = np.any(truth != 0, axis=-1)
    if valid is not None:
        mask &= valid
    p, t = prediction[mask].astype(np.float64), truth[mask].astype(np.float64)
    lengths = np.linalg.norm(p, axis=-1) * np.linalg.norm(t, axis=-1)
    cosine = np.einsum("nc,nc->n", p, t) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def topk_hits(scores: NDArray, labels: NDArray, k: int = 1) -> NDArray[np.bool_]:
    """Whether each row's label is among its `k` best scores, (N,) bool.

    `scores` (N, C), `labels` (N,). Ties count against the label, so that constant scores earn
    nothing.
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    return (scores >= own).sum(1) - 1 < k


def topk(scores: NDArray, labels: NDArray, k: int = 1) -> float:
    """Percentage of rows whose label is among the `k` best scores."""
    return 100 * float(topk_hits(scores, labels, k).mean())


def best_ranks(similarity: NDArray, query_ids: NDArray, gallery_ids: NDArray) -> NDArray[np.int64]:
    """Rank (0 = first) of each query's best own gallery item, (Q,) int64.

    `similarity` (Q, G); an item is a query's own where the ids agree. Items of others that tie
    count as ranked before. A query without an own item raises ValueError.
    """
    own = query_ids[:, None] == gallery_ids[None, :]  # (Q, G)
    if not own.any(1).all():
        raise ValueError("a query has no matching item in the gallery")
    best = np.where(own, similarity, -np.inf).max(1, keepdims=True)
    return ((similarity >= best) & ~own).sum(1)


def recall_at(ranks: NDArray, k: int) -> float:
    """Percentage of queries whose rank (0 = first) is below `k`."""
    return 100 * float((np.asarray(ranks) < k).mean())


def retrieval_ranks(
    images: NDArray, texts: NDArray, owners: NDArray, *, block: int = 1024
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks for image retrieval (per caption) and text retrieval (per image).

    `images` (N, D) and `texts` (M, D) are L2-normalised, `owners` (M,) is the image index of each
    caption; an image may own many captions, and text retrieval counts its best one. Similarities
    are computed `block` queries at a time, so that N x M never lies in memory.
    """
    ids = np.arange(len(images))
    of_texts = [
        best_ranks(texts[i : i + block] @ images.T, owners[i : i + block], ids)
        for i in range(0, len(texts), block)
    ]
    of_images = [
        best_ranks(images[i : i + block] @ texts.T, ids[i : i + block], owners)
        for i in range(0, len(images), block)
    ]
    return np.concatenate(of_texts), np.concatenate(of_images)
