"""What every expert is: a description of itself, and images in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
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


class Expert(Protocol):
    """A labelling model. `predict` is deterministic, and an image's label does not depend on what
    else is in the batch, up to floating-point rounding."""

    @property
    def spec(self) -> ExpertSpec: ...

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Label images (H_i, W_i, 3) uint8 RGB of any sizes.

        Each label is in the array form of `spec.kind`, covers the whole image at its aspect, and
        has a longer side of at most 512.
        """
        ...
