"""Random resize, flip and crop of a picture with its label, as the authors' library does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cliptex.data.transforms import View, view_image
from cliptex.labels.kinds import Box, Kind

CROP_ATTEMPTS = 10


class CropAugmentation(BaseModel):
    """A square crop of a picture resized at random (corenet, segmentation transforms).

    short_side: range in pixels (both included) of the resized picture's shorter side.
    longest: limit in pixels of its longer side, at which the shorter one gives way.
    flip: probability of a mirror image.
    class_share: a crop in which one class covers more than this share of the valid pixels is
        drawn again, up to ten times; None never does, and other kinds of label never do.

    A resized picture smaller than the crop is padded below and to the right: black pixels with
    invalid labels. Pictures are resized with an antialiased bilinear filter, as in evaluation
    (their library: bicubic).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    short_side: tuple[int, int] = (256, 768)
    longest: int = Field(default=1024, gt=0)
    flip: float = Field(default=0.5, ge=0, le=1)
    class_share: float | None = Field(default=0.75, gt=0, le=1)


@dataclass(frozen=True)
class Window:
    """A crop of a resized picture: `size` (h, w) of the latter, its first row and column, flip."""

    size: tuple[int, int]
    top: int
    left: int
    flip: bool

    def inside(self, side: int) -> tuple[Box, tuple[int, int]]:
        """The part of the picture that a crop of `side` shows, and its (rows, columns)."""
        rows = slice(self.top, min(self.top + side, self.size[0]))
        columns = slice(self.left, min(self.left + side, self.size[1]))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return Box.of_pixels(rows, columns, self.size), shape


def draw_window(
    height: int, width: int, side: int, augmentation: CropAugmentation, rng: np.random.Generator
) -> Window:
    """Draw a window of `side` pixels for a picture of `height` x `width`."""
    low, high = augmentation.short_side
    scale = int(rng.integers(low, high + 1)) / min(height, width)
    scale = min(scale, augmentation.longest / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (int(rng.integers(0, max(0, n - side) + 1)) for n in size)
    return Window(size, top, left, bool(rng.random() < augmentation.flip))


def cut_image(image: np.ndarray, window: Window, side: int) -> np.ndarray:
    """The window of (H, W, 3) uint8, padded with black: (side, side, 3) uint8."""
    box, shape = window.inside(side)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[: shape[0], : shape[1]] = view_image(image, View(box, False), shape)
    return np.ascontiguousarray(canvas[:, ::-1]) if window.flip else canvas


def cut_label(kind: Kind, label: np.ndarray, window: Window, side: int) -> np.ndarray:
    """The window of a label by its kind's rules, padded with what is invalid: (side, side, ...)."""
    box, shape = window.inside(side)
    canvas = np.full((side, side, *label.shape[2:]), kind.invalid, label.dtype)
    canvas[: shape[0], : shape[1]] = kind.sample(label, box, shape)
    return kind.flip(canvas) if window.flip else canvas


def augmented(
    image: np.ndarray,
    label: np.ndarray,
    kind: Kind,
    side: int,
    augmentation: CropAugmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One random crop of `image` (H, W, 3) uint8 and of its label, of the same height and width."""
    limit = augmentation.class_share
    for _ in range(CROP_ATTEMPTS):
        window = draw_window(image.shape[0], image.shape[1], side, augmentation, rng)
        target = cut_label(kind, label, window, side)
        if limit is None or kind.largest_share(target) <= limit:
            break
    return cut_image(image, window, side), target
