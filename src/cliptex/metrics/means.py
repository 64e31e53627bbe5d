"""The mean over what is there: the rule for classes and images that a set does not hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_of_present(values: NDArray) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN, (...) float64 of (..., C); NaN where all is."""
    present = ~np.isnan(values)
    count = present.sum(-1)
    total = np.where(present, values, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def percent_of(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """100 * part / whole of one shape; NaN where `whole` is 0."""
    share = np.full(whole.shape, np.nan)
    return np.divide(100.0 * part, whole, out=share, where=whole > 0)
