"""What every expert is: a description of itself, and images in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from cliptex.labels.kinds import Kind

Precision = Literal["float32", "bfloat16", "float16"]
Unlabelled = Literal["background", "ignore"]
Frame = Literal[
    "right-down-forward-away",
    "right-down-forward-toward",
    "right-up-back-toward",
    "right-down-back-toward",
]
FRAME_SIGNS: dict[str, tuple[int, int, int]] = {
    "right-down-forward-away": (1, 1, 1),  # Bae et al., DSINE, GeoNet's ground truth
    "right-down-forward-toward": (-1, -1, -1),  # MoGe-2, Metric3D v2
    "right-up-back-toward": (-1, 1, 1),  # Marigold
    "right-down-back-toward": (-1, -1, 1),  # Omnidata (left-handed)
}
"""Signs that bring (x, y, z) of a frame to right, down, forward, pointing away from the camera.
"toward" frames describe the surface's side that faces the camera."""
MAX_SIDE = 512
"""Longest side in pixels of a label."""
UNKNOWN = "unknown"
"""What a spec says of a licence, or among `learnt_from`, that nobody has stated."""


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs. `device` is PyTorch's name: "cpu", "cuda:1"."""

    device: str = "cpu"
    precision: Precision = "float32"


@dataclass(frozen=True)
class Choices:
    """What a user may decide about an expert's labels, where its family leaves it open.

    unlabelled: what pixels without an instance become in a class map made of instances.
    frame: the axes in which a hub network gives normals; None where its family's are known.
    """

    unlabelled: Unlabelled = "background"
    frame: Frame | None = None


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """Everything that decides an expert's labels; all of it goes to the label store's manifest.

    `preprocessing` holds JSON values; `thresholds` those of turning detections into labels, and
    as "unlabelled" the id of pixels without one; `learnt_from` names benchmarks ("voc",
    "nyu-depth") whose images the expert was trained on, "unknown" where there may be more;
    `confidence` says in words what `Prediction.confidence` means, "" where there is none.
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
    confidence: str = ""


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


@runtime_checkable
class Concurrent(Protocol):
    """What an expert has in addition if several threads may call its `predict` at once."""

    @property
    def concurrency(self) -> int:
        """How many calls at once are worth while."""
        ...


def concurrency_of(expert: Expert) -> int:
    """How many threads may call the expert's `predict` at once: 1 unless it says otherwise."""
    return expert.concurrency if isinstance(expert, Concurrent) else 1


class Wrapper:
    """An expert around another: what it does not change is the other's."""

    def __init__(self, expert: Expert, spec: ExpertSpec | None = None) -> None:
        self.expert = expert
        self.spec: ExpertSpec = expert.spec if spec is None else spec

    @property
    def concurrency(self) -> int:
        """That of the expert inside."""
        return concurrency_of(self.expert)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction per image (H_i, W_i, 3) uint8."""
        return self.expert.predict(images)
