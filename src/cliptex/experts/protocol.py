"""What every expert is: a description of itself, and images in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cliptex.labels.kinds import Kind


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """Everything that decides an expert's labels; all of it goes to the label store's manifest.

    `preprocessing` holds JSON values; `thresholds` those of turning detections into labels;
    `learnt_from` names benchmarks ("voc", "nyu-depth") whose images the expert was trained on.
    """

    name: str
    kind: Kind
    source: str
    revision: str
    weights_sha256: str
    licence: str
    preprocessing: dict[str, object] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    learnt_from: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an expert says about one image.

    label: in the array form of the expert's kind, over the whole image, of any resolution.
    confidence: (h, w) float in [0, 1] over the whole image, of any resolution; None where the
        expert does not know its own reliability.
    instances: detected boxes per class id, counted at the score threshold; None for experts that
        detect nothing.
    """

    label: np.ndarray
    confidence: np.ndarray | None = None
    instances: Mapping[int, int] | None = None


class Expert(Protocol):
    """A labelling model. `predict` is deterministic, and an image's prediction does not depend on
    what else is in the batch, up to floating-point rounding."""

    @property
    def spec(self) -> ExpertSpec: ...

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Label images (H_i, W_i, 3) uint8 RGB of any sizes, one prediction an image.

        Raising is an answer too: the batch is then tried again in smaller pieces, and an image
        that fails alone is recorded with the error's text.
        """
        ...
