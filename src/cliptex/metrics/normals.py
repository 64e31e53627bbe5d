"""Angles between predicted and true surface normals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ANGLES = (5.0, 7.5, 11.25, 22.5, 30.0)  # degrees; Bae et al. 2021, Table 1
_BINS_PER_DEGREE = 1000


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
