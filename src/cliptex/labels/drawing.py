"""Colours for labels: class palette, scalar colour map, normals as RGB. Pure numpy."""

from __future__ import annotations

from functools import cache

import numpy as np

IGNORED_COLOUR = (224, 224, 192)  # as in PASCAL VOC's own palette

# Nine equidistant colours of matplotlib's "viridis" (public domain, CC0), dark blue to yellow.
_VIRIDIS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float64,
)


@cache
def class_colours(ignore: int) -> np.ndarray:
    """Colour of each class id by PASCAL VOC's bit rule (id 0 black); (ignore + 1, 3) uint8."""
    ids = np.arange(ignore + 1)
    colours = np.zeros((ignore + 1, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> channel) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    colours[ignore] = IGNORED_COLOUR
    colours.setflags(write=False)
    return colours


def draw_scalar(array: np.ndarray) -> np.ndarray:
    """(H, W) float, NaN = invalid -> (H, W, 3) uint8 between the 2nd and 98th percentiles."""
    valid = np.isfinite(array)
    if not valid.any():
        return np.zeros((*array.shape, 3), dtype=np.uint8)
    low, high = np.percentile(array[valid], (2, 98))
    share = (np.where(valid, array, low) - low) / max(high - low, 1e-12)
    stops = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(np.clip(share, 0, 1), stops, _VIRIDIS[:, c]) for c in range(3)]
    colours = np.rint(np.stack(channels, axis=2)).astype(np.uint8)  # (H, W, 3)
    colours[~valid] = 0
    return colours


def draw_normals(array: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W, 3) unit vectors -> (H, W, 3) uint8, RGB = (n + 1) / 2; invalid pixels black."""
    colours = np.rint((np.nan_to_num(array) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    colours[~valid] = 0
    return colours
