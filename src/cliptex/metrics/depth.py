"""Errors of depth after alignment in disparity, per image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEPTH_RANGE = (0.0, 10.0)  # metres; Lasinger's NYUv2 evaluation keeps 0 < depth < 10


@dataclass(frozen=True, kw_only=True)
class DepthErrors:
    """Errors of one image over its valid pixels, NaN where there is none (Eigen et al. 2014).

    With d the true depth and d' the predicted one, both in metres, and e = ln d' - ln d:

    absrel: mean of |d' - d| / d, a fraction.
    rmse: root of the mean of (d' - d)^2, metres.
    log10: mean of |log10 d' - log10 d|.
    silog: 100 times the standard deviation of e.
    d1, d2, d3: percentage of pixels with max(d' / d, d / d') below 1.25, 1.25^2, 1.25^3.
    """

    absrel: float
    rmse: float
    log10: float
    silog: float
    d1: float
    d2: float
    d3: float


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


def aligned_depth(
    prediction: NDArray, depth: NDArray, mask: NDArray[np.bool_], bounds: tuple[float, float]
) -> NDArray[np.float64]:
    """Predicted depth in metres, (M,) float64, on the pixels of `mask`.

    Scale and shift by `align_disparity`; then disparity is clamped to [1 / bounds[1],
    1 / bounds[0]] (no upper limit where bounds[0] is 0), as Lasinger's evaluation does below and
    ZoeDepth's on both sides.
    """
    scale, shift = align_disparity(prediction, depth, mask)
    most = 1 / bounds[0] if bounds[0] > 0 else np.inf
    disparity = scale * prediction[mask].astype(np.float64) + shift
    return 1 / np.clip(disparity, 1 / bounds[1], most)


def depth_errors(
    prediction: NDArray,
    depth: NDArray,
    *,
    valid: NDArray[np.bool_] | None = None,
    bounds: tuple[float, float] = DEPTH_RANGE,
) -> DepthErrors:
    """Errors of one image after alignment in disparity.

    `prediction` (H, W) is any disparity, `depth` (H, W) metres; pixels outside `bounds` do not
    count, and `valid` narrows them further. The score of a set is the mean over its images.
    """
    mask = depth_mask(depth, bounds)
    if valid is not None:
        mask &= valid
    if not mask.any():
        nan = float("nan")
        return DepthErrors(absrel=nan, rmse=nan, log10=nan, silog=nan, d1=nan, d2=nan, d3=nan)
    guess = aligned_depth(prediction, depth, mask, bounds)
    true = depth[mask].astype(np.float64)
    logarithm = np.log(guess) - np.log(true)
    ratio = np.exp(np.abs(logarithm))
    return DepthErrors(
        absrel=float(np.mean(np.abs(guess - true) / true)),
        rmse=float(np.sqrt(np.mean((guess - true) ** 2))),
        log10=float(np.mean(np.abs(logarithm)) / np.log(10)),
        silog=100 * float(np.std(logarithm)),
        d1=100 * float(np.mean(ratio < 1.25)),
        d2=100 * float(np.mean(ratio < 1.25**2)),
        d3=100 * float(np.mean(ratio < 1.25**3)),
    )


def absrel(
    prediction: NDArray,
    depth: NDArray,
    *,
    valid: NDArray[np.bool_] | None = None,
    bounds: tuple[float, float] = DEPTH_RANGE,
) -> float:
    """Mean |d' - d| / d of one image by `depth_errors`; a fraction, NaN if no pixel."""
    return depth_errors(prediction, depth, valid=valid, bounds=bounds).absrel
