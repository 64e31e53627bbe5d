"""Accuracy of a classifier that remembers what every image added to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.means import mean_of_present
from cliptex.metrics.ranking import mean_per_class, topk_hits
from cliptex.per_image import OF_CLASSES

MEAN_PER_CLASS = "mean_per_class"
RULE_PER_CLASS = "top-1 per class, mean over the classes of the test set"


class Accuracy:
    """Top-1, top-5 where there are more than five classes, and the mean of top-1 over classes."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._ks = {"top1": 1} | ({"top5": 5} if classes > 5 else {})
        self._hits: dict[str, list[bool]] = {name: [] for name in self._ks}
        self._labels: list[int] = []

    def update(self, scores: NDArray, labels: NDArray) -> None:
        """Add images by `scores` (N, K) and `labels` (N,); see `topk_hits`."""
        self._labels += labels.tolist()
        for name, k in self._ks.items():
            self._hits[name] += topk_hits(scores, labels, k).tolist()

    def values(self) -> dict[str, float]:
        """Percentages, top-1 first; NaN without any image."""
        images = self.per_image()
        of_classes = images.pop(MEAN_PER_CLASS)
        shares = {name: float(mean_of_present(hits)) for name, hits in images.items()}
        mean = mean_per_class(of_classes["hit"], of_classes["label"], self.classes)
        return {**shares, MEAN_PER_CLASS: mean}

    def per_image(self) -> dict[str, NDArray]:
        """Hits (N,) float64 of 0 or 100 by metric, and of the mean over classes `OF_CLASSES`."""
        of_classes = np.zeros(len(self._labels), OF_CLASSES)
        of_classes["label"], of_classes["hit"] = self._labels, self._hits["top1"]
        hits = {name: 100 * np.array(hits, float) for name, hits in self._hits.items()}
        return {**hits, MEAN_PER_CLASS: of_classes}
