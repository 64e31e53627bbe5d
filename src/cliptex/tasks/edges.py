"""Edges from scalar fields of their strength: a fourth task, and the example of adding one.

Nothing else knows of it: the kind of its labels says how they are cropped, resized and mirrored,
and `TASKS` makes its name known to configurations. CONTRIBUTING.md goes through the steps.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cliptex.labels.kinds import Kind, ScalarField
from cliptex.losses import DenseTargets, cell_l1
from cliptex.tasks.task import Task


def loss(prediction: Tensor, targets: DenseTargets) -> Tensor:
    """Mean absolute error over all valid pixels at the labels' size."""
    return cell_l1(prediction, targets.target, targets.valid, weight=targets.weight)


def picture(prediction: np.ndarray, kind: Kind) -> np.ndarray:
    """Strength, normalised as the labels are."""
    assert isinstance(kind, ScalarField)
    return kind.draw(prediction[0].astype(np.float32))


EDGES = Task(name="edges", kind=ScalarField, channels=lambda kind: 1, loss=loss, picture=picture)
