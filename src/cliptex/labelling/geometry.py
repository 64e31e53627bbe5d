"""Surface normals from a depth map and a field of view.

A camera sees the point at depth z in the direction (x, y, 1) z, x and y being the pixel's distance
from the image's centre over the focal length. For a plane n . p = c this gives, with disparity
d = 1 / z,  c d = n . (x, y, 1): disparity is an affine function of the image, and its two slopes
and its value at x = y = 0 are the normal up to a factor. This is the cross product of neighbouring
points, without their division by d; so a disparity's unknown *scale* does not matter. An unknown
*shift* does: it adds to the third component and turns every normal towards or from the optical
axis. Disparity in 1/m therefore gives exact normals for the right field of view, a relative one
only what its shift allows.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.ndimage import uniform_filter

from cliptex.labels.kinds import UnitVector

VIEW = 55.0  # degrees along the longer side: a 35 mm lens on a full frame has 54.4
WINDOWS = 32  # the longer side over the size of the window in which slopes are measured
# Root mean square distance from a window's plane, as a share of the mean disparity, from which the
# window is taken to lie across an edge. Less would fit the steps in which sensors measure depth.
SMOOTH = 0.02


def normals_from_depth(disparity: np.ndarray, *, view: float = VIEW) -> np.ndarray:
    """Normals of the planes that fit a disparity best around each pixel.

    disparity: (H, W), proportional to 1 / depth; NaN and values that are not above 0 are invalid.
    view: field of view along the longer side, in degrees; the optical axis is at the centre.

    Least squares over windows of 1/32 of the longer side, and 3 pixels at least, which the few
    levels of a stored disparity need. A window that a plane does not fit, because it lies across
    an edge, is replaced by the best of the eight around it that still hold the pixel.

    Returns (H, W, 3) float32 in the labels' frame; (0, 0, 0) where nothing can be said.
    """
    height, width = disparity.shape
    focal = max(height, width) / 2 / np.tan(np.radians(view) / 2)  # pixels
    radius = max(1, round(max(height, width) / WINDOWS / 2))
    usable = np.isfinite(disparity) & (disparity > 0)
    planes, misfit = _fit_planes(np.where(usable, disparity, 0).astype(np.float64), usable, radius)
    normals = planes * np.array([focal, focal, 1])  # (H, W, 3)
    chosen = normals.reshape(-1, 3)[_best_windows(misfit, radius)]
    return UnitVector().check(np.where(usable[:, :, None], chosen, np.nan))


def _fit_planes(
    disparity: np.ndarray, valid: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares d = p0 u + p1 v + p2 over the window around each pixel.

    u and v are pixels right and down of the image's centre. Returns planes (H, W, 3) and the
    misfit (H, W), the root mean square distance over the mean disparity; inf without a plane.
    """
    height, width = disparity.shape
    v, u = np.mgrid[:height, :width] + 0.5 - np.array([height, width]).reshape(2, 1, 1) / 2

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=2 * radius + 1, mode="constant")

    w = valid.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = mean(w)
        mu, mv, md = (mean(w * x) / share for x in (u, v, disparity))
        uu, uv, vv = (
            mean(w * a * b) / share - c
            for a, b, c in ((u, u, mu * mu), (u, v, mu * mv), (v, v, mv * mv))
        )
        ud, vd = (mean(w * a * disparity) / share - m * md for a, m in ((u, mu), (v, mv)))
        dd = mean(w * disparity**2) / share - md**2
        determinant = uu * vv - uv**2
        p0 = (vv * ud - uv * vd) / determinant
        p1 = (uu * vd - uv * ud) / determinant
        misfit = np.sqrt(np.maximum(dd - p0 * ud - p1 * vd, 0)) / md
    # Fewer than three pixels, or three in a line: the least spread of a corner is 2/9 squared.
    known = (share * (2 * radius + 1) ** 2 > 2.5) & (determinant > 0.01)
    planes = np.stack([p0, p1, md - p0 * mu - p1 * mv], axis=-1)
    return np.where(known[:, :, None], planes, np.nan), np.where(known, misfit, np.inf)


def _best_windows(misfit: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) flat index of each pixel's window: its own if smooth, else the best of nine."""
    height, width = misfit.shape
    padded = np.pad(np.maximum(misfit, SMOOTH), radius, constant_values=np.inf)
    numbers = np.pad(np.arange(misfit.size).reshape(misfit.shape), radius)
    best, lowest = np.arange(misfit.size).reshape(misfit.shape), np.maximum(misfit, SMOOTH)
    for down, right in product((0, radius, 2 * radius), repeat=2):
        part = (slice(down, down + height), slice(right, right + width))
        better = padded[part] < lowest
        best = np.where(better, numbers[part], best)
        lowest = np.minimum(padded[part], lowest)
    return best
