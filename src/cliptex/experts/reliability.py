"""How reliable an expert's labels are, from the expert alone: does it say the same of the mirror?

A prediction is compared, pixel by pixel, with the prediction for the mirrored image, mirrored back
by its kind's rule. Where the two differ, at least one of them is wrong. The agreement lies in
[0, 1] and is averaged over cells, so that a small map can be stored with the label and used as a
weight of the loss. The labels themselves are those of the image as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image

from cliptex.experts.protocol import Expert, Prediction, Wrapper
from cliptex.labels.codecs import fitted_size, scalar_statistics
from cliptex.labels.extras import CONFIDENCE_SIDE
from cliptex.labels.kinds import ClassMap, Kind, ScalarField

Confidence = Literal["own", "flip", "none"]
FLIP = "flip consistency"
METRIC = ("m", "1/m")  # units with a scale and a zero of their own

_BOX = Image.Resampling.BOX


def with_confidence(expert: Expert, how: Confidence) -> Expert:
    """`expert` with confidence from another source; its labels stay what they are.

    - own: what the expert itself says, if it says anything (the expert, unchanged);
    - flip: see `FlipConsistent`, twice the cost;
    - none: no confidence.

    Raises ValueError for another word.
    """
    if how == "own":
        return expert
    if how == "flip":
        return FlipConsistent(expert)
    if how == "none":
        return WithoutConfidence(expert)
    raise ValueError(f"confidence is one of own, flip, none; not {how!r}")


class FlipConsistent(Wrapper):
    """An expert whose confidence is `flip_agreement`, averaged over cells by `reduce_confidence`.

    The mirrored images go through the expert in a batch of their own, so that neither its need of
    memory nor its labels differ from those of the bare expert.
    """

    def __init__(self, expert: Expert) -> None:
        super().__init__(expert, replace(expert.spec, confidence=FLIP))

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction per image (H_i, W_i, 3) uint8."""
        straight = self.expert.predict(images)
        mirrored = self.expert.predict([np.ascontiguousarray(x[:, ::-1]) for x in images])
        return [
            replace(a, confidence=_flip_confidence(self.spec.kind, a.label, b.label))
            for a, b in zip(straight, mirrored, strict=True)
        ]


class WithoutConfidence(Wrapper):
    """An expert that keeps its own reliability to itself."""

    def __init__(self, expert: Expert) -> None:
        super().__init__(expert, replace(expert.spec, confidence=""))

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction per image (H_i, W_i, 3) uint8."""
        return [replace(found, confidence=None) for found in self.expert.predict(images)]


def flip_agreement(kind: Kind, label: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far `other`, predicted for the mirror image and mirrored back, supports `label`.

    Both in the kind's form and of one size (H, W). Returns (H, W) float32 in [0, 1]; 0 where
    only one of the two is valid, NaN where the label is not.

    - class map: 1 where both say the same class, else 0;
    - scalar field: exp(-|a - b| / s), s the label's own mean absolute deviation. The training
      loss divides by the same s, so this is exp(-loss between the two answers): free of the
      unit, and 1/e where they differ by a typical deviation of the image. A ratio such as
      |a - b| / (|a| + |b|) would depend on where a relative disparity happens to have its zero.
      Values without a scale or zero of their own ("relative disparity") are first aligned by
      least squares, with a scale that is not negative; metric ones are not: there a common
      factor is an error like any other;
    - normals: 1 - angle / 90 degrees, not below 0: the scale on which NLL-AngMF's confidence is
      given. The cosine would still call 25 degrees an agreement of 0.9.
    """
    valid, both = kind.valid(label), kind.valid(label) & kind.valid(other)
    agreement = np.where(valid, np.float32(0), np.float32(np.nan))
    if isinstance(kind, ClassMap):
        agreement[both] = label[both] == other[both]
    elif isinstance(kind, ScalarField):
        agreement[both] = _scalar_agreement(kind, label, label[both], other[both])
    else:
        agreement[both] = angular_agreement(label[both], other[both])
    return agreement


def angular_agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - angle / 90 degrees, at least 0, of unit vectors (N, 3); (N,) float32 in [0, 1]."""
    chord = np.linalg.norm(a.astype(np.float64) - b, axis=-1)  # exact where angles are small
    angle = 2 * np.arcsin(np.clip(chord / 2, 0, 1))
    return (1 - angle / (np.pi / 2)).clip(0, 1).astype(np.float32)


def reduce_confidence(values: np.ndarray) -> np.ndarray:
    """Average (H, W) in [0, 1] over cells, NaN left out, to a longer side of at most 64.

    Returns (h, w) float32 in [0, 1]; 0 for cells without a finite value.
    """
    valid = np.isfinite(values)
    height, width = fitted_size((values.shape[0], values.shape[1]), CONFIDENCE_SIDE)
    total, weight = (
        np.asarray(Image.fromarray(x.astype(np.float32)).resize((width, height), _BOX))
        for x in (np.where(valid, values, 0), valid)
    )
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0).clip(0, 1)


def _flip_confidence(kind: Kind, label: np.ndarray, mirrored: np.ndarray) -> np.ndarray | None:
    """(h, w) confidence; None for a label out of its kind's form, which the engine will refuse."""
    try:
        checked, other = kind.check(label), kind.flip(kind.check(mirrored))
    except ValueError:
        return None
    size = (checked.shape[0], checked.shape[1])
    if other.shape[:2] != size:
        other = kind.resize(other, size)
    return reduce_confidence(flip_agreement(kind, checked, other))


def _scalar_agreement(
    kind: ScalarField, label: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """exp(-|a - b| / s) of the values (N,) of pixels valid in both."""
    if not a.size:
        return a
    a, b = a.astype(np.float64), b.astype(np.float64)
    if kind.unit not in METRIC:
        b = _aligned(a, b)
    spread = max(scalar_statistics(label)[1], np.finfo(np.float32).tiny)
    return np.exp(-np.abs(a - b) / spread)


def _aligned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """s b + t, with the s >= 0 and t of least squares to `a`; both (N,)."""
    centred = b - b.mean()
    variance = float(centred @ centred)
    scale = max(float(centred @ a) / variance, 0.0) if variance > 0 else 0.0
    return scale * centred + a.mean()
