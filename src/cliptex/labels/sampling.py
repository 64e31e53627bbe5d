"""Boxes in relative coordinates, and separable nearest and bilinear sampling of arrays.

Half-pixel convention throughout: pixel i of n covers [i/n, (i+1)/n) of the picture, its centre
lies at (i + 0.5)/n. Labels may have another resolution than the image they belong to, so every
crop is a `Box` in [0, 1] of the whole picture. Separable gathers keep a 512x512 sample at a few
milliseconds without any dependency beyond numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# Sample positions closer than this (in pixels) to a pixel's border or centre count as lying on
# it: float64 products such as (2/7) * 7 miss the integer by 1e-15, never by 1e-7.
SNAP = 1e-7
# Output rows blended at a time, so that temporaries stay in the cache (measured: best of 8 to 128).
BLOCK = 64


@dataclass(frozen=True)
class Box:
    """A part of the picture; all four in [0, 1], relative to the whole picture's width and height.

    Raises ValueError where the box is empty or leaves the picture.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise ValueError(f"a box needs 0 <= left < right <= 1 and top likewise, got {self}")

    @classmethod
    def of_pixels(cls, rows: slice, columns: slice, shape: tuple[int, int]) -> Box:
        """The box that covers whole pixels `[rows, columns]` of an array of `shape` (H, W)."""
        height, width = shape
        return cls(
            left=columns.start / width,
            top=rows.start / height,
            right=columns.stop / width,
            bottom=rows.stop / height,
        )


WHOLE = Box()


def _centres(start: float, stop: float, inputs: int, outputs: int, flip: bool) -> np.ndarray:
    """Centres of `outputs` equal cells of [start, stop], in units of input pixels; (outputs,)."""
    cells = np.arange(outputs, dtype=np.float64) + 0.5
    centres = (start + cells * ((stop - start) / outputs)) * inputs
    return centres[::-1] if flip else centres


def nearest_indices(
    start: float, stop: float, inputs: int, outputs: int, *, flip: bool = False
) -> np.ndarray:
    """Input pixel under the centre of each output pixel; (outputs,) intp in [0, inputs)."""
    centres = _centres(start, stop, inputs, outputs, flip)
    return np.clip(np.floor(centres + SNAP).astype(np.intp), 0, inputs - 1)


@dataclass(frozen=True)
class Taps:
    """The two input pixels and their weights for each output pixel along one axis; all (n,)."""

    first: np.ndarray
    second: np.ndarray
    first_weight: np.ndarray
    second_weight: np.ndarray

    def part(self, rows: slice) -> Taps:
        """The taps of some of the output pixels."""
        return Taps(
            self.first[rows],
            self.second[rows],
            self.first_weight[rows],
            self.second_weight[rows],
        )


def bilinear_taps(
    start: float, stop: float, inputs: int, outputs: int, *, flip: bool = False
) -> Taps:
    """Taps of linear interpolation between pixel centres, clamped at the picture's border."""
    positions = _centres(start, stop, inputs, outputs, flip) - 0.5
    positions = np.clip(positions, 0, inputs - 1)
    whole = np.rint(positions)
    positions = np.where(np.abs(positions - whole) < SNAP, whole, positions)
    first = np.floor(positions).astype(np.intp)
    second = np.minimum(first + 1, inputs - 1)
    fraction = positions - first
    return Taps(
        first,
        second,
        (1.0 - fraction).astype(np.float32),
        fraction.astype(np.float32),
    )


def sample_nearest(
    array: np.ndarray, box: Box, size: tuple[int, int], *, flip: bool = False
) -> np.ndarray:
    """The nearest input pixel for each output pixel; (H, W, ...) -> (h, w, ...), same dtype."""
    rows = nearest_indices(box.top, box.bottom, array.shape[0], size[0])
    columns = nearest_indices(box.left, box.right, array.shape[1], size[1], flip=flip)
    return np.take(np.take(array, rows, axis=0), columns, axis=1)


def sample_bilinear(
    array: np.ndarray, box: Box, size: tuple[int, int], *, flip: bool = False
) -> np.ndarray:
    """Bilinear interpolation without antialiasing; float32, (H, W) or (H, W, C) to (h, w) likewise.

    Channels of the result lie apart in memory (it is a view of (C, h, w)): what follows, such as
    lengths and products, works on whole planes and is several times faster than on triples.
    Weights are non-negative and are applied as products (never as differences), so a sum over
    masked values keeps its relative precision however small the weight of the valid pixels is.
    """
    rows = bilinear_taps(box.top, box.bottom, array.shape[0], size[0])
    columns = bilinear_taps(box.left, box.right, array.shape[1], size[1], flip=flip)
    height, width, channels = array.shape[0], array.shape[1], math.prod(array.shape[2:])
    flat = np.asarray(array, dtype=np.float32).reshape(height, -1)  # (H, W * C)
    out = np.empty((channels, *size), dtype=np.float32)  # (C, h, w)
    for start in range(0, size[0], BLOCK):
        part = slice(start, start + BLOCK)
        block = _blend(flat, rows.part(part), axis=0).reshape(-1, width, channels)
        for channel in range(channels):
            out[channel, part] = _blend(block[:, :, channel], columns, axis=1)
    return out[0] if array.ndim == 2 else out.transpose(1, 2, 0)


def _blend(values: np.ndarray, taps: Taps, axis: int) -> np.ndarray:
    """Weighted sum of the two taps along `axis` of (a, b); one gather where all weights are 0."""
    first = np.take(values, taps.first, axis=axis)
    if not taps.second_weight.any():
        return first
    shape = (-1, 1) if axis == 0 else (1, -1)
    second = np.take(values, taps.second, axis=axis)
    first *= taps.first_weight.reshape(shape)
    second *= taps.second_weight.reshape(shape)
    first += second
    return first
