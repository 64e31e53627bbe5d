"""What a codec is, and the parts that codecs share: PNGs, their sizes, maps of confidence.

| codec | PNG | code | error at most |
|---|---|---|---|
| `png-class-8/-16` | gray, 8-bit or 16-bit | the id itself | 0 |
| `png-scalar-10` | gray, 8-bit, 2 planes | 1..1023 = low..high; 0 = invalid | (high - low) / 2044 |
| `png-normal-oct` | gray, 8-bit, 2 planes | 91 + round(90 (u, v)); (0, 0) invalid | 1.36 degrees |
| `png-scalar-16` | gray, 16-bit | 1..65535 = low..high; 0 = invalid | (high - low) / 131068 |
| `png-normal-rgb8` | RGB, 8-bit | 128 + round(n * 127); (0, 0, 0) = invalid | 0.40 degrees |

The 2 planes (of a scalar: code // 256, code % 256) stand one above the other in one picture of
twice the height; (u, v) is the octahedral map. New stores use the first three; the last two were
the default before, and stay readable and writable. Each kind holds its own codecs (`Kind.codecs`);
the manifest names the one in use.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

EXTENSION = "png"
# Runs of one byte, and Huffman's code. Behind PNG's filters little else repeats in what experts
# say: against Pillow's choice (Z_FILTERED) at level 4, depth, normals and classes of 24 photographs
# take 1, 7 and 18 % fewer bytes, deflated and filtered in 0.45 to 0.7 of the time. The exception is
# depth without any noise, as a renderer gives it: 1.5 times the bytes.
COMPRESSION = {"compress_type": zlib.Z_RLE, "compress_level": 4}
CONFIDENCE_SIDE = 64
CONFIDENCE_EXTENSION = "confidence.png"
INSTANCES = "instances"  # name in a label's JSON


@dataclass(frozen=True)
class Encoded:
    """One label as bytes: a PNG, its JSON (or None), and its confidence's PNG (or None)."""

    png: bytes
    meta: dict[str, Any] | None
    confidence: bytes | None = None


@dataclass(frozen=True)
class Codec:
    """One way to store the labels of a kind.

    bound: the largest error, in words. invalid: how invalid pixels are stored, in words.
    encode: a label in its kind's form to bytes. decode: PNG and JSON to a label in that form;
    ValueError where the bytes are not of this codec.
    """

    bound: str
    invalid: str
    encode: Callable[[np.ndarray], Encoded]
    decode: Callable[[bytes, Mapping[str, Any] | None], np.ndarray]


def fitted_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(h, w) of the same aspect with a longer side of at most `max_side`; never enlarged."""
    longest = max(size)
    if longest <= max_side:
        return size
    height, width = (max(1, round(side * max_side / longest)) for side in size)
    return height, width


def png_bytes(array: np.ndarray) -> bytes:
    """An array of one of Pillow's modes as a PNG, (H, W) uint8 or uint16 or (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **COMPRESSION)
    return buffer.getvalue()


def png_pixels(png: bytes, mode: str) -> np.ndarray:
    """A PNG's pixels; ValueError where it is unreadable or of another mode than `mode`."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.mode != mode:
                raise ValueError(f"expected a PNG of mode {mode}, found {image.mode}")
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a readable PNG: {error}") from None


def two_planes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower half of a picture; (2H, W) -> two (H, W)."""
    half, odd = divmod(pixels.shape[0], 2)
    if odd:
        raise ValueError(f"two planes need an even height, found {pixels.shape[0]}")
    return pixels[:half], pixels[half:]


def encode_confidence(confidence: np.ndarray) -> bytes:
    """An (h, w) map in [0, 1], of any resolution, as a gray PNG of a longer side of at most 64.

    The code is round(255 confidence). Reliability varies slowly over an image, and full size would
    double a store, so each pixel of the map counts in one pixel of the PNG, with equal weights (a
    box filter). Raises ValueError for another shape, and for NaN or values outside [0, 1].
    """
    array = np.asarray(confidence)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fiub":
        raise ValueError(f"a confidence is (h, w) float, got {array.shape} {array.dtype}")
    array = array.astype(np.float32)
    if not ((array >= 0) & (array <= 1)).all():
        found = "NaN" if np.isnan(array).any() else f"{array.min():.4g} to {array.max():.4g}"
        raise ValueError(f"a confidence lies in [0, 1], got {found}")
    height, width = fitted_size((array.shape[0], array.shape[1]), CONFIDENCE_SIDE)
    if array.shape != (height, width):
        array = np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BOX))
    return png_bytes(np.rint(255 * array).clip(0, 255).astype(np.uint8))


def decode_confidence(png: bytes) -> np.ndarray:
    """(h, w) float32 in [0, 1]; ValueError where the bytes are no such PNG."""
    return png_pixels(png, "L").astype(np.float32) / np.float32(255)


def instances_to_json(instances: Mapping[int, int]) -> dict[str, int]:
    """Numbers of objects by class id, as a label's JSON keeps them."""
    return {str(int(number)): int(count) for number, count in sorted(instances.items())}


def instances_from_json(meta: Mapping[str, Any] | None) -> dict[int, int] | None:
    """Counts by class id, or None where none were stored; ValueError where they are no counts."""
    found = None if meta is None else meta.get(INSTANCES)
    if found is None:
        return None
    try:
        return {int(number): int(count) for number, count in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"the JSON's {INSTANCES} are not counts by class id") from None
