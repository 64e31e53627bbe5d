"""Intersection over union from a global confusion matrix, in percent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.means import mean_of_present


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
        return float(mean_of_present(iou))

    def pixel_accuracy(self) -> float:
        """Percentage of valid pixels that are right."""
        total = self.counts.sum()
        return float(100 * np.trace(self.counts) / total) if total else float("nan")


class ImageConfusion(ConfusionMatrix):
    """A `ConfusionMatrix` to which every call of `update` adds one image."""

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        super().__init__(num_classes, ignore)
        self._areas: list[NDArray[np.int32]] = []  # (C, 3) each, as `areas`

    def update(self, prediction: NDArray, truth: NDArray) -> NDArray[np.int64]:
        """Add one image; see `ConfusionMatrix.update`."""
        counts = super().update(prediction, truth)
        self._areas.append(np.stack(counts_of(counts), axis=-1).astype(np.int32))
        return counts

    def areas(self) -> NDArray[np.int32]:
        """Pixels of intersection, prediction and truth per image and class, (N, C, 3).

        Their sums over any images are what `iou_from_counts` takes.
        """
        return np.stack(self._areas)

    def by_class(self, names: Sequence[str]) -> dict[str, object]:
        """IoU in percent (None: absent), true pixels and images per class, JSON-able."""
        truth = self.counts.sum(1)
        images = (self.areas()[..., 2] > 0).sum(0)
        iou = zip(names, self.iou().tolist(), strict=True)
        support = zip(names, truth.tolist(), images.tolist(), strict=True)
        return {
            "absent_classes": [name for name, n in zip(names, truth, strict=True) if n == 0],
            "class_iou": {name: round(v, 2) if v == v else None for name, v in iou},  # NaN: absent
            "class_support": {name: [pixels, count] for name, pixels, count in support},
        }


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
