"""PNG codecs, one per kind of label, each with a stated bound on its error.

| kind          | PNG                          | code                         | largest error    |
|---------------|------------------------------|------------------------------|------------------|
| `ClassMap`    | gray, 8-bit (16-bit above    | the id itself                | 0                |
|               | 255 classes)                 |                              |                  |
| `ScalarField` | gray, 16-bit                 | 1..65535 = low..high;        | (high - low)     |
|               |                              | 0 = invalid                  | / 131068         |
| `UnitVector`  | RGB, 8-bit                   | 128 + round(n * 127);        | 0.40 degrees     |
|               |                              | (0, 0, 0) = invalid          |                  |

The normals' bound: each component is off by at most 0.5 / 127, the vector by sqrt(3) times that,
0.00682, and asin(0.00682) = 0.391 degrees. Zero has a code of its own, so that walls and floors
along the axes are exact, which the usual (n + 1) * 127.5 would tilt by 0.3 degrees. No unit vector
comes near the code (0, 0, 0), a vector of length 1.7.

PNG was chosen because everything reads it. Compression level 3 is measured: on disparity and
normals of NYU photographs at 320x240, level 6 saves 5 % and 12 % of the bytes and takes three
times as long to write (9 -> 27 ms and 24 -> 74 ms); reading takes the same time.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

EXTENSION = "png"
COMPRESS_LEVEL = 3
SCALAR_CODES = 65534  # steps between the codes 1 and 65535
NORMAL_ERROR_DEGREES = 0.40

_NORMAL_TABLE = ((np.arange(256) - 128) / 127).astype(np.float32)


@dataclass(frozen=True)
class Encoded:
    """One label as bytes: a PNG, and what the codec must keep per image (or None)."""

    png: bytes
    meta: dict[str, Any] | None


def codec_name(kind: Kind) -> str:
    """The codec's name as the manifest records it."""
    if isinstance(kind, ClassMap):
        return f"png-class-{kind.dtype.itemsize * 8}"
    return "png-scalar-16" if isinstance(kind, ScalarField) else "png-normal-rgb8"


def error_bound(kind: Kind) -> str:
    """The codec's largest error, in words, as the manifest records it."""
    if isinstance(kind, ClassMap):
        return "exact"
    if isinstance(kind, ScalarField):
        return "(high - low) / 131068 of each image's own range; invalid pixels exact"
    return f"{NORMAL_ERROR_DEGREES:.2f} degrees; invalid pixels exact"


def encode(kind: Kind, array: np.ndarray) -> Encoded:
    """Encode one label, already in the kind's canonical form (`kind.check`)."""
    if isinstance(kind, ClassMap):
        return Encoded(_png(array), None)
    if isinstance(kind, ScalarField):
        return _encode_scalar(array)
    return Encoded(_png(_normal_codes(kind, array)), None)


def decode(kind: Kind, png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    """The label's array in the kind's form; ValueError where the bytes are not of this kind."""
    if isinstance(kind, ClassMap):
        mode = "L" if kind.dtype == np.uint8 else "I;16"
        return _pixels(png, mode).astype(kind.dtype, copy=False)
    if isinstance(kind, ScalarField):
        return _decode_scalar(_pixels(png, "I;16"), meta)
    return _decode_normals(_pixels(png, "RGB"))


def scalar_statistics(array: np.ndarray) -> tuple[float, float]:
    """(shift, scale) of a scalar field: median, and mean absolute deviation from the median.

    Over valid pixels, in float64; both robust enough for raw network disparities. The scale of a
    constant map is 0: whoever divides by it guards. NaN for both where nothing is valid. As in
    MiDaS (Ranftl et al. 2020, eq. 5), computed once on the whole image before any crop.
    """
    values = array[np.isfinite(array)].astype(np.float64)
    if values.size == 0:
        return float("nan"), float("nan")
    shift = float(np.median(values))
    return shift, float(np.abs(values - shift).mean())


def fitted_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(h, w) of the same aspect with a longer side of at most `max_side`; never enlarged."""
    longest = max(size)
    if longest <= max_side:
        return size
    height, width = (max(1, round(side * max_side / longest)) for side in size)
    return height, width


def fit(kind: Kind, array: np.ndarray, max_side: int) -> np.ndarray:
    """The label, made smaller by its kind's rule where its longer side exceeds `max_side`."""
    size = (array.shape[0], array.shape[1])
    smaller = fitted_size(size, max_side)
    return array if smaller == size else kind.resize(array, smaller)


def _encode_scalar(array: np.ndarray) -> Encoded:
    valid = np.isfinite(array)
    if not valid.any():
        raise ValueError("a scalar field without a valid pixel cannot be encoded")
    low, high = float(array[valid].min()), float(array[valid].max())
    step = (high - low) / SCALAR_CODES or 1.0
    shares = (np.where(valid, array, low).astype(np.float64) - low) / step
    codes = np.where(valid, np.rint(shares).clip(0, SCALAR_CODES) + 1, 0).astype(np.uint16)
    shift, scale = scalar_statistics(array)
    return Encoded(_png(codes), {"low": low, "high": high, "shift": shift, "scale": scale})


def _decode_scalar(codes: np.ndarray, meta: Mapping[str, Any] | None) -> np.ndarray:
    if meta is None or not {"low", "high"} <= meta.keys():
        raise ValueError("a scalar field's JSON must hold low and high")
    low, high = float(meta["low"]), float(meta["high"])
    values = codes.astype(np.float64)
    values -= 1
    values *= (high - low) / SCALAR_CODES
    values += low
    values[codes == 0] = np.nan
    return values.astype(np.float32)


def _normal_codes(kind: UnitVector, array: np.ndarray) -> np.ndarray:
    valid = kind.valid(array)
    codes = 128 + np.rint(np.where(valid[:, :, None], array, 0) * 127).clip(-127, 127)
    return np.where(valid[:, :, None], codes, 0).astype(np.uint8)


def _decode_normals(codes: np.ndarray) -> np.ndarray:
    vectors = _NORMAL_TABLE[codes]  # (H, W, 3)
    squared = np.einsum("hwc,hwc->hw", vectors, vectors)
    # The invalid code decodes to a squared length of 3; all others lie within 0.02 of 1.
    inverse = np.zeros_like(squared)
    np.divide(1, np.sqrt(squared), out=inverse, where=(squared > 0.5) & (squared < 2))
    vectors *= inverse[:, :, None]
    vectors += np.float32(0)  # -0.0 of the invalid becomes 0.0
    return vectors


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=COMPRESS_LEVEL)
    return buffer.getvalue()


def _pixels(png: bytes, mode: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.mode != mode:
                raise ValueError(f"expected a PNG of mode {mode}, found {image.mode}")
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a readable PNG: {error}") from None
