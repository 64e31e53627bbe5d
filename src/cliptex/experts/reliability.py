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
from cliptex.labels.codecs import CONFIDENCE_SIDE, fitted_size
from cliptex.labels.kinds import Kind

Confidence = Literal["own", "flip", "none"]
FLIP = "flip consistency"

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
    """An expert whose confidence is `Kind.agreement` of two answers, averaged over cells.

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
    return reduce_confidence(kind.agreement(checked, other))
