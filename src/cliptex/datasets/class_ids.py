"""Class ids of masks: what a palette or grey PNG stores, and the check of their range."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

# Pillow spreads grey of 2 and 4 bits over 0 to 255 when it decodes: by 85 and by 17.
SPREAD = {"L;2": 85, "L;4": 17}


def read_ids(path: Path) -> np.ndarray:
    """Class ids (H, W) of a palette or grey PNG: the stored indices, not the palette's colours."""
    return decode_ids(path.read_bytes(), str(path))


def decode_ids(data: bytes, source: str) -> np.ndarray:
    """Class ids (H, W) uint8 or uint16 of a PNG's bytes; ValueError names `source`.

    Palettes and grey of 1, 2, 4 and 8 bits give what is stored, uint8, as does grey of 16, uint16.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            mode, ids = picture.mode, stored_values(picture)
    except (OSError, SyntaxError) as error:  # Pillow's SyntaxError: a damaged PNG
        raise ValueError(
            f"{source} does not decode (was its download cut off?): {error}"
        ) from error
    if mode not in ("1", "P", "L", "I", "I;16"):
        raise ValueError(
            f"{source}: a mask of mode {mode!r}; expected a palette or grey PNG "
            "whose pixel values are class ids (do not convert masks to RGB)"
        )
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def stored_values(picture: Image.Image) -> np.ndarray:
    """The numbers that a file holds, (H, W, ...); `picture` must be open and not decoded yet.

    Grey of 1, 2 and 4 bits is not spread over 0 to 255, unlike what Pillow gives.
    """
    tile = getattr(picture, "tile", None)  # gone once the picture is decoded
    raw = tile[0].args if tile else None
    raw = raw[0] if isinstance(raw, tuple) else raw  # a name alone in PNG
    values = np.array(picture)
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values // SPREAD[raw] if raw in SPREAD else values


def check_ids(
    ids: np.ndarray, count: int, source: object, remedy: str, *, ignore: int | None = None
) -> None:
    """ValueError names `source` and the largest id that is neither below `count` nor `ignore`."""
    unknown = ids >= count
    if ignore is not None:
        unknown &= ids != ignore
    if unknown.any():
        ignored = "" if ignore is None else f", or {ignore} for none"
        raise ValueError(
            f"{source}: class id {int(ids[unknown].max())}, but its data set has {count} ids, 0 to "
            f"{count - 1}{ignored}: {remedy}"
        )
