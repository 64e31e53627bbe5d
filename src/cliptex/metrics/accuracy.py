"""Accuracy of a classifier that remembers what every image added to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.means import mean_of_present
from cliptex.metrics.ranking import RULE_TIES, expected_hits, label_ranks, mean_per_class
from cliptex.per_image import OF_CLASSES

MEAN_PER_CLASS = "mean_per_class"
RULE_PER_CLASS = "top-1 per class, mean over the classes of the test set"


class Accuracy:
    """Top-1, top-5 where there are more than five classes, and the mean of top-1 over classes."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._ks = {"top1": 1} | ({"top5": 5} if classes > 5 else {})
        self._hits: dict[str, list[float]] = {name: [] for name in self._ks}
        self._labels: list[int] = []
        self._tied = 0

    def update(self, scores: NDArray, labels: NDArray) -> None:
        """Add images by `scores` (N, K) and `labels` (N,); ties count by `expected_hits`."""
        self._labels += labels.tolist()
        ranks = label_ranks(scores, labels)
        self._tied += ranks.tied_queries
        for name, k in self._ks.items():
            self._hits[name] += expected_hits(ranks, k).tolist()

    @property
    def tied(self) -> int:
        """Images whose label has the same score as another class."""
        return self._tied

    def ties(self) -> dict[str, object]:
        """What rows say of ties: how many images have one, and how they count; {} without any."""
        return {"tied_images": self._tied, "ties": RULE_TIES} if self._tied else {}

    def values(self) -> dict[str, float]:
        """Percentages, top-1 first; NaN without any image."""
        images = self.per_image()
        of_classes = images.pop(MEAN_PER_CLASS)
        shares = {name: float(mean_of_present(hits)) for name, hits in images.items()}
        mean = mean_per_class(of_classes["hit"], of_classes["label"], self.classes)
        return {**shares, MEAN_PER_CLASS: mean}

    def per_image(self) -> dict[str, NDArray]:
        """Expected hits (N,) from 0 to 100 by metric, and of the mean over classes `OF_CLASSES`."""
        of_classes = np.zeros(len(self._labels), OF_CLASSES)
        of_classes["label"], of_classes["hit"] = self._labels, self._hits["top1"]
        hits = {name: 100 * np.array(hits, float) for name, hits in self._hits.items()}
        return {**hits, MEAN_PER_CLASS: of_classes}
