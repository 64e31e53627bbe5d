"""From an image to a network's input tensor, as a card's input section says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cliptex.experts.card import Input, Multiple, Pad
from cliptex.labels.kinds import Box

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Prepared:
    """A tensor without its batch axis, and where the image lies in it.

    `area` is the part of the tensor's plane that the image covers; `image_size` (H, W) is the
    original image's, `area_size` the image's in tensor pixels.
    """

    tensor: np.ndarray
    area: Box
    area_size: tuple[int, int]
    image_size: tuple[int, int]


def prepare(image: np.ndarray, spec: Input) -> Prepared:
    """Resize, pad, normalise and lay out one image (H, W, 3) uint8 RGB."""
    size = (image.shape[0], image.shape[1])
    inner, plane = network_size(size, spec)
    pixels = _resize(image, inner, spec.interpolation)
    if plane != inner:
        value = spec.resize.value if isinstance(spec.resize, Pad) else 0
        padded = np.full((*plane, 3), value, dtype=np.uint8)
        padded[: inner[0], : inner[1]] = pixels
        pixels = padded
    if spec.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = pixels.transpose(2, 0, 1)  # (3, H, W)
    if spec.dtype != "uint8":
        planes = _normalise(planes, spec)
    pixels = planes if spec.layout == "NCHW" else planes.transpose(1, 2, 0)
    area = Box(right=inner[1] / plane[1], bottom=inner[0] / plane[0])
    return Prepared(np.ascontiguousarray(pixels), area, inner, size)


def _normalise(planes: np.ndarray, spec: Input) -> np.ndarray:
    """(3, H, W) uint8 -> (3, H, W) of the card's dtype: a table look-up for each channel."""
    values = np.arange(256, dtype=np.float32)[:, None] * np.float32(spec.scale)
    table = (values - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)  # (256, 3)
    return np.stack(
        [
            column.take(plane)
            for column, plane in zip(table.astype(spec.dtype).T, planes, strict=True)
        ]
    )


def network_size(size: tuple[int, int], spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size of the resized image, size of the network's input plane), both (h, w)."""
    rule = spec.resize
    if isinstance(rule, Pad):
        ratio = min(rule.height / size[0], rule.width / size[1])
        inner = (
            min(rule.height, max(1, round(size[0] * ratio))),
            min(rule.width, max(1, round(size[1] * ratio))),
        )
        return inner, (rule.height, rule.width)
    if isinstance(rule, Multiple):
        ratio = rule.side / (max(size) if rule.of == "longer" else min(size))
        height, width = (
            max(1, round(side * ratio / rule.multiple)) * rule.multiple for side in size
        )
        return (height, width), (height, width)
    return (rule.height, rule.width), (rule.height, rule.width)


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H, W, 3) -> (h, w, 3) uint8."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), _FILTERS[interpolation])
    return np.asarray(resized)
