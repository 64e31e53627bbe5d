"""A confusion matrix that remembers what every image added to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.confusion import ConfusionMatrix, counts_of


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
