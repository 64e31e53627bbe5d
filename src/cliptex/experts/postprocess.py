"""From a network's output to a label of the whole image, as a card's output section says."""

from __future__ import annotations

import math

import numpy as np

from cliptex.experts.card import ClassIds, Logits, Output, Scalar, Vector
from cliptex.experts.preprocess import Prepared
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import Box, ClassMap, ScalarField, UnitVector
from cliptex.labels.sampling import SNAP, sample_bilinear

MAX_SIDE = 512

# Signs that bring (x, y, z) of a frame to right, down, forward, pointing away from the camera.
# "toward" frames describe the surface's side that faces the camera.
FRAME_SIGNS: dict[str, tuple[int, int, int]] = {
    "right-down-forward-away": (1, 1, 1),  # Bae et al., DSINE, GeoNet's ground truth
    "right-down-forward-toward": (-1, -1, -1),  # MoGe-2, Metric3D v2
    "right-up-back-toward": (-1, 1, 1),  # Marigold
    "right-down-back-toward": (-1, -1, 1),  # Omnidata (left-handed)
}


def label_from_output(output: np.ndarray, spec: Output, prepared: Prepared) -> np.ndarray:
    """One image's label: padding cut off, at the image's aspect, in its kind's array form.

    The longer side is the smallest of the image's, the network's (its input's for logits, whose
    maps are coarse) and 512 pixels: enlarging further would add bytes and no information.
    Raises ValueError where the output has another shape than the card says.
    """
    if isinstance(spec, Logits):
        return _from_logits(output, spec, prepared)
    if isinstance(spec, Vector):
        vectors = _channels_last(output, spec.layout, 3)
        signs = np.array(FRAME_SIGNS[spec.frame], dtype=np.float32)
        kind = UnitVector()
        vectors, box, size = _image_part(kind.check(vectors) * signs, prepared)
        return kind.sample(vectors, box, size)
    plane = _plane(output)
    if isinstance(spec, ClassIds):
        kind = ClassMap(spec.classes, 255 if len(spec.classes) <= 255 else 65535)
        return kind.sample(*_image_part(kind.check(plane), prepared))
    return _from_scalar(plane, spec, prepared)


def _from_scalar(plane: np.ndarray, spec: Scalar, prepared: Prepared) -> np.ndarray:
    kind = ScalarField("1/m" if spec.unit == "m" else spec.unit)
    values = kind.check(plane)
    if spec.unit == "m":
        disparity = np.full_like(values, np.nan)
        values = np.divide(1, values, out=disparity, where=values > 0)
    return kind.sample(*_image_part(values, prepared))


def _from_logits(output: np.ndarray, spec: Logits, prepared: Prepared) -> np.ndarray:
    """Enlarge class by class and keep the best, so that memory holds one class at a time."""
    scores = _channels_last(output, spec.layout, len(spec.classes))
    if not np.isfinite(scores).all():
        raise ValueError("the network's class scores are not finite")
    scores, box, _ = _image_part(scores, prepared)
    size = _label_size(prepared, max(prepared.area_size))
    best = np.full(size, -np.inf, dtype=np.float32)
    ids = np.zeros(size, dtype=np.uint8 if len(spec.classes) <= 255 else np.uint16)
    for number in range(len(spec.classes)):
        score = sample_bilinear(scores[:, :, number], box, size)
        better = score > best
        best[better] = score[better]
        ids[better] = number
    return ids


def _image_part(array: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, Box, tuple[int, int]]:
    """Pixels of an output plane that the image touches, its box in them, and the label's size.

    Padding is cut off before anything is interpolated, so it cannot bleed into the label.
    """
    height = array.shape[0] * prepared.area.bottom
    width = array.shape[1] * prepared.area.right
    rows, columns = (math.ceil(extent - SNAP) for extent in (height, width))
    box = Box(right=min(1.0, width / columns), bottom=min(1.0, height / rows))
    size = _label_size(prepared, max(1, round(max(height, width))))
    return array[:rows, :columns], box, size


def _label_size(prepared: Prepared, longest: int) -> tuple[int, int]:
    return fitted_size(prepared.image_size, min(longest, MAX_SIDE))


def _plane(output: np.ndarray) -> np.ndarray:
    """(h, w) from an output with axes of length 1 around or between."""
    if output.ndim == 3 and output.shape[0] == 1:
        output = output[0]
    elif output.ndim == 3 and output.shape[2] == 1:
        output = output[:, :, 0]
    if output.ndim != 2:
        raise ValueError(f"expected one plane (h, w) per image, the network gave {output.shape}")
    return output


def _channels_last(output: np.ndarray, layout: str, channels: int) -> np.ndarray:
    """(h, w, channels) float32."""
    moved = np.moveaxis(output, 0, -1) if layout == "NCHW" and output.ndim == 3 else output
    if moved.ndim != 3 or moved.shape[2] != channels:
        raise ValueError(
            f"expected {channels} channels in layout {layout}, the network gave {output.shape} "
            "per image"
        )
    return np.ascontiguousarray(moved, dtype=np.float32)
