"""PNG codecs by name, each with a stated bound on its error; the manifest names the one in use.

| codec | PNG | code | error at most |
|---|---|---|---|
| `png-class-8/-16` | gray, 8-bit or 16-bit | the id itself | 0 |
| `png-scalar-10` | gray, 8-bit, 2 planes | 1..1023 = low..high; 0 = invalid | (high - low) / 2044 |
| `png-normal-oct` | gray, 8-bit, 2 planes | 91 + round(90 (u, v)); (0, 0) invalid | 1.36 degrees |
| `png-scalar-16` | gray, 16-bit | 1..65535 = low..high; 0 = invalid | (high - low) / 131068 |
| `png-normal-rgb8` | RGB, 8-bit | 128 + round(n * 127); (0, 0, 0) = invalid | 0.40 degrees |

The 2 planes (of a scalar: code // 256, code % 256) stand one above the other in one picture of
twice the height; (u, v) is the octahedral map. New stores use the first three; the last two were
the default before, and stay readable and writable.

Bounds: an octahedral code moves p, |p| >= 1 / sqrt(3), by at most (0.5, 0.5, 1) / 90, so by at
most sqrt(1.5) * sqrt(3) / 90 rad = 1.351 degrees. In RGB each component is off by at most
0.5 / 127, the vector by sqrt(3) times that, and asin(0.00682) = 0.391 degrees. Both hold the six
axes exactly, so that walls and floors stay what they are.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from PIL import Image

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

EXTENSION = "png"
# Runs of one byte, and Huffman's code. Behind PNG's filters little else repeats in what experts
# say: against Pillow's choice (Z_FILTERED) at level 4, depth, normals and classes of 24 photographs
# take 1, 7 and 18 % fewer bytes, deflated and filtered in 0.45 to 0.7 of the time. The exception is
# depth without any noise, as a renderer gives it: 1.5 times the bytes.
COMPRESSION = {"compress_type": zlib.Z_RLE, "compress_level": 4}
FINE_STEPS = 65534  # between the codes 1 and 65535
COARSE_STEPS = 1022  # between the codes 1 and 1023
OCTAHEDRAL_STEPS = 90  # from the centre to a border of the octahedral square
OCTAHEDRAL_ERROR_DEGREES = 1.36
RGB_ERROR_DEGREES = 0.40

_NORMAL_TABLE = ((np.arange(256) - 128) / 127).astype(np.float32)


@dataclass(frozen=True)
class Encoded:
    """One label as bytes: a PNG, its JSON (or None), and its confidence's PNG (or None)."""

    png: bytes
    meta: dict[str, Any] | None
    confidence: bytes | None = None


def codec_name(kind: Kind) -> str:
    """The name of the kind's default codec, as the manifest records it."""
    if isinstance(kind, ClassMap):
        return f"png-class-{kind.dtype.itemsize * 8}"
    return "png-scalar-10" if isinstance(kind, ScalarField) else "png-normal-oct"


def error_bound(kind: Kind, codec: str | None = None) -> str:
    """The largest error of `codec` (default: the kind's), in words, as the manifest records it."""
    return _codec(kind, codec).bound


def encode(kind: Kind, array: np.ndarray, codec: str | None = None) -> Encoded:
    """Encode one label, already in the kind's canonical form (`kind.check`).

    `codec` is one of the kind's names in the table above, by default `codec_name(kind)`;
    ValueError where it is unknown or of another kind.
    """
    return _codec(kind, codec).encode(array)


def decode(
    kind: Kind, png: bytes, meta: Mapping[str, Any] | None, codec: str | None = None
) -> np.ndarray:
    """The label's array in the kind's form; ValueError where the bytes are not of this codec."""
    return _codec(kind, codec).decode(png, meta)


def scalar_statistics(array: np.ndarray) -> tuple[float, float]:
    """(shift, scale) of a scalar field: median, and mean absolute deviation from the median.

    Over valid pixels, in float64; both robust enough for raw network disparities. The scale of a
    constant map is 0: whoever divides by it guards. NaN for both where nothing is valid. As in
    MiDaS (Ranftl et al. 2020, eq. 5), computed once on the whole image before any crop.
    """
    values = array[np.isfinite(array)].astype(np.float64)
    return _statistics(values) if values.size else (float("nan"), float("nan"))


def _statistics(values: np.ndarray) -> tuple[float, float]:
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


def _encode_scalar(array: np.ndarray, steps: int) -> Encoded:
    valid = np.isfinite(array)
    if not valid.any():
        raise ValueError("a scalar field without a valid pixel cannot be encoded")
    whole = valid.all()
    values = (array if whole else array[valid]).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    shift, scale = _statistics(values)
    values -= low
    values /= (high - low) / steps or 1.0
    values += 1.5  # a code from 1 on, and a half: the conversion cuts
    codes = np.zeros(array.shape, np.uint16)
    codes[... if whole else valid] = values
    planes = codes if steps == FINE_STEPS else np.concatenate([codes >> 8, codes & 255])
    pixels = planes.astype(np.uint16 if steps == FINE_STEPS else np.uint8, copy=False)
    return Encoded(png_bytes(pixels), {"low": low, "high": high, "shift": shift, "scale": scale})


def _decode_fine(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    codes = png_pixels(png, "I;16")
    low, high = _ends(meta)
    values = codes.astype(np.float64)
    values -= 1
    values *= (high - low) / FINE_STEPS
    values += low
    values[codes == 0] = np.nan
    return values.astype(np.float32)


def _decode_coarse(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    upper, lower = _planes(png_pixels(png, "L"))
    low, high = _ends(meta)
    codes = (upper.astype(np.intp) << 8) | lower
    if int(codes.max()) > COARSE_STEPS + 1:
        raise ValueError(f"a scalar code is above {COARSE_STEPS + 1}")
    values = low + np.arange(-1, COARSE_STEPS + 1) * ((high - low) / COARSE_STEPS)
    values[0], values[-1] = np.nan, high
    return values.astype(np.float32)[codes]


def _ends(meta: Mapping[str, Any] | None) -> tuple[float, float]:
    if meta is None or not {"low", "high"} <= meta.keys():
        raise ValueError("a scalar field's JSON must hold low and high")
    return float(meta["low"]), float(meta["high"])


def _encode_rgb(array: np.ndarray) -> Encoded:
    valid = _directed(array)
    codes = 128 + np.rint(np.where(valid[:, :, None], array, 0) * 127).clip(-127, 127)
    return Encoded(png_bytes(np.where(valid[:, :, None], codes, 0).astype(np.uint8)), None)


def _decode_rgb(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    vectors = _NORMAL_TABLE[png_pixels(png, "RGB")]  # (H, W, 3)
    squared = np.einsum("hwc,hwc->hw", vectors, vectors)
    # The invalid code decodes to a squared length of 3; all others lie within 0.02 of 1.
    inverse = np.zeros_like(squared)
    np.divide(1, np.sqrt(squared), out=inverse, where=(squared > 0.5) & (squared < 2))
    vectors *= inverse[:, :, None]
    vectors += np.float32(0)  # -0.0 of the invalid becomes 0.0
    return vectors


def _encode_octahedral(array: np.ndarray) -> Encoded:
    """Project to the octahedron |x|+|y|+|z| = 1 and fold its far half outwards."""
    valid = _directed(array)
    if not valid.all():
        array = np.where(valid[:, :, None], array, np.float32(1))
    x, y, z = np.ascontiguousarray(np.moveaxis(array, 2, 0))  # whole planes are read faster
    steps = np.float32(OCTAHEDRAL_STEPS)
    scale = steps / (np.abs(x) + np.abs(y) + np.abs(z))
    u, v = x * scale, y * scale
    far = z < 0
    if far.any():
        outwards = np.copysign(steps - np.abs(v), u), np.copysign(steps - np.abs(u), v)
        u, v = (np.where(far, out, near) for out, near in zip(outwards, (u, v), strict=True))
    codes = np.concatenate([u, v])
    np.rint(codes, out=codes)
    codes += OCTAHEDRAL_STEPS + 1
    if not valid.all():
        codes[~np.concatenate([valid, valid])] = 0
    return Encoded(png_bytes(codes.astype(np.uint8)), None)


def _decode_octahedral(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    first, second = _planes(png_pixels(png, "L"))
    codes = (first.astype(np.intp) << 8) | second  # (H, W)
    return np.take(_octahedral_table(), codes, axis=0)  # (H, W, 3)


@cache
def _octahedral_table() -> np.ndarray:
    """The vector of every pair of codes; (65536, 3) float32, zero where the pair is not one."""
    steps = OCTAHEDRAL_STEPS
    u, v = np.divmod(np.arange(65536), 256)
    used = (np.minimum(u, v) >= 1) & (np.maximum(u, v) <= 2 * steps + 1)
    u, v = u - steps - 1, v - steps - 1
    z = steps - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    vectors = np.stack([u - np.sign(u) * fold, v - np.sign(v) * fold, z], axis=1)  # integers
    vectors[~used] = 0
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    table = (vectors / length).astype(np.float32)
    table.setflags(write=False)
    return table


def _directed(array: np.ndarray) -> np.ndarray:
    return UnitVector().valid(array)


def _planes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2H, W) -> two (H, W)."""
    half, odd = divmod(pixels.shape[0], 2)
    if odd:
        raise ValueError(f"two planes need an even height, found {pixels.shape[0]}")
    return pixels[:half], pixels[half:]


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


@dataclass(frozen=True)
class Codec:
    """One row of the table above: the kind it stores, its largest error in words, its functions."""

    kind: type[ClassMap] | type[ScalarField] | type[UnitVector]
    bound: str
    encode: Callable[[np.ndarray], Encoded]
    decode: Callable[[bytes, Mapping[str, Any] | None], np.ndarray]


def _encode_classes(array: np.ndarray) -> Encoded:
    return Encoded(png_bytes(array), None)


def _decode_classes(png: bytes, meta: Mapping[str, Any] | None, *, bits: int) -> np.ndarray:
    return png_pixels(png, "L" if bits == 8 else "I;16").astype(f"uint{bits}", copy=False)


def _scalar(steps: int, decode: Callable[..., np.ndarray]) -> Codec:
    bound = f"(high - low) / {2 * steps} of each image's own range; invalid pixels exact"
    return Codec(ScalarField, bound, partial(_encode_scalar, steps=steps), decode)


def _normal(degrees: float, encode: Callable[..., Encoded], decode: Callable) -> Codec:
    return Codec(UnitVector, f"{degrees:.2f} degrees; invalid pixels exact", encode, decode)


CODECS = {
    "png-class-8": Codec(ClassMap, "exact", _encode_classes, partial(_decode_classes, bits=8)),
    "png-class-16": Codec(ClassMap, "exact", _encode_classes, partial(_decode_classes, bits=16)),
    "png-scalar-10": _scalar(COARSE_STEPS, _decode_coarse),
    "png-scalar-16": _scalar(FINE_STEPS, _decode_fine),
    "png-normal-oct": _normal(OCTAHEDRAL_ERROR_DEGREES, _encode_octahedral, _decode_octahedral),
    "png-normal-rgb8": _normal(RGB_ERROR_DEGREES, _encode_rgb, _decode_rgb),
}


def _codec(kind: Kind, name: str | None) -> Codec:
    name = codec_name(kind) if name is None else name
    found = CODECS.get(name)
    wrong_bits = isinstance(kind, ClassMap) and name != codec_name(kind)
    if found is None or not isinstance(kind, found.kind) or wrong_bits:
        known = ", ".join(n for n, c in CODECS.items() if isinstance(kind, c.kind))
        raise ValueError(f"codec {name!r} does not store {kind.to_json()['kind']}; known: {known}")
    return found
