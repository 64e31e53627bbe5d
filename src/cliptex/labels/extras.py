"""What may be stored beside a label: how reliable it is, and how many objects it shows.

The confidence is a small gray PNG, c = round(255 confidence), averaged to a longer side of at most
64: reliability varies slowly over an image, and full size would double a store. Counts of objects
per class join the label's JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from cliptex.labels.codecs import fitted_size, png_bytes, png_pixels
from cliptex.labels.kinds import ClassMap, Kind

CONFIDENCE_SIDE = 64
CONFIDENCE_EXTENSION = "confidence.png"
INSTANCES = "instances"  # name in the JSON


def encode_confidence(confidence: np.ndarray) -> bytes:
    """An (h, w) map in [0, 1], of any resolution, as a PNG of a longer side of at most 64.

    Each pixel of the map counts in one pixel of the PNG, with equal weights (a box filter).
    Raises ValueError for another shape, and for NaN or values outside [0, 1].
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


def instances_to_json(kind: Kind, instances: Mapping[int, int]) -> dict[str, int]:
    """Counts as JSON keeps them; ValueError for ids that are no class and for negative counts."""
    if not isinstance(kind, ClassMap):
        raise ValueError("only a class map has instances")
    for number, count in instances.items():
        if not 0 <= number < len(kind.classes) or count < 0:
            raise ValueError(
                f"{count} instances of class {number}: ids are 0 to {len(kind.classes) - 1}, "
                "counts are not negative"
            )
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
