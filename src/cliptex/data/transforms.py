"""One crop and one flip, drawn per sample, for the image and all of its labels.

A view is drawn from a private generator seeded by (seed, position), where the position counts
samples since the first step of the run. Nothing else touches that generator, so the same run
gives the same views with any number of workers, after any interruption, and with or without
labels: CLIP-FT and CLIPTeX see the very same pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cliptex.labels.kinds import Box

CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop
REDUCING_GAP = 3.0  # Pillow: at 3.0 nearly indistinguishable from one-step resampling


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a picture.

    scale: range of the crop's share of the picture's area, in (0, 1]. The default is that of
        the authors' library, which hardly crops, since a caption speaks of the whole picture.
    ratio: range of the crop's width / height, drawn uniformly in its logarithm.
    flip: probability of a horizontal mirror image, in [0, 1]. The authors' library never flips.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0


@dataclass(frozen=True)
class View:
    """The part of a picture that is seen, and whether it is mirrored after the crop."""

    box: Box
    flip: bool


def sample_generator(seed: int, position: int, purpose: int = 0) -> np.random.Generator:
    """The private generator of the sample at global `position` (0, 1, ... over all epochs).

    `purpose` keeps independent draws apart, so that a change of one never moves the other.
    """
    return np.random.default_rng([seed, position, purpose])


def draw_view(
    height: int, width: int, augmentation: Augmentation, generator: np.random.Generator
) -> View:
    """Draw a random resized crop and a flip for a picture of `height` x `width` pixels.

    The rule is torchvision's (ten attempts, then the largest central crop within the range of
    ratios), but the box stays continuous: it is not rounded to pixels of the image, because it
    must mean the same part of a label of another size.
    """
    flip = bool(generator.random() < augmentation.flip)
    log_low, log_high = (math.log(r) for r in augmentation.ratio)
    for _ in range(CROP_ATTEMPTS):
        area = height * width * generator.uniform(*augmentation.scale)
        ratio = math.exp(generator.uniform(log_low, log_high))
        crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if crop_width <= width and crop_height <= height:
            left = generator.uniform(0.0, width - crop_width)
            top = generator.uniform(0.0, height - crop_height)
            return View(_box(left, top, crop_width, crop_height, height, width), flip)
    ratio = min(max(width / height, augmentation.ratio[0]), augmentation.ratio[1])
    crop_width, crop_height = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return View(_box(left, top, crop_width, crop_height, height, width), flip)


def _box(
    left: float, top: float, crop_width: float, crop_height: float, height: int, width: int
) -> Box:
    # min(): the sums may exceed 1 by a rounding error.
    return Box(
        left=left / width,
        top=top / height,
        right=min(1.0, (left + crop_width) / width),
        bottom=min(1.0, (top + crop_height) / height),
    )


def reduction(height: int, width: int, view: View, size: tuple[int, int]) -> int:
    """By how much a JPEG of `height` x `width` may be made smaller while it is decoded: 1, 2, 4, 8.

    The largest that leaves the view at least as many pixels as `size` (h, w) has, so that nothing
    is ever enlarged which was not before.
    """
    rows = (view.box.bottom - view.box.top) * height / size[0]
    columns = (view.box.right - view.box.left) * width / size[1]
    return max((by for by in (2, 4, 8) if by <= min(rows, columns)), default=1)


def view_image(
    image: np.ndarray,
    view: View,
    size: tuple[int, int],
    *,
    extent: tuple[float, float] | None = None,
) -> np.ndarray:
    """The view of `image` (H, W, 3) uint8 at `size` (h, w), antialiased: (h, w, 3) uint8.

    extent: (height, width) of the picture in pixels of `image`, where that is a reduction of it:
        a decoder rounds up, so the last row and column may cover less than the others.
    """
    height, width = image.shape[:2] if extent is None else extent
    box = view.box
    resized = Image.fromarray(image).resize(
        (size[1], size[0]),
        Image.Resampling.BILINEAR,
        box=(box.left * width, box.top * height, box.right * width, box.bottom * height),
        reducing_gap=REDUCING_GAP,
    )
    seen = np.asarray(resized)  # (h, w, 3)
    return seen[:, ::-1] if view.flip else seen
