"""Surface normals from unit vectors: L1 on the three components (paper, section 4.2)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cliptex.labels.kinds import Kind, UnitVector
from cliptex.losses import DenseTargets, cell_l1
from cliptex.tasks.task import Task


def loss(prediction: Tensor, targets: DenseTargets) -> Tensor:
    """Mean absolute error over components of all valid pixels; the prediction is not normalised."""
    return cell_l1(prediction, targets.target, targets.valid, weight=targets.weight)


def picture(prediction: np.ndarray, kind: Kind) -> np.ndarray:
    """Directions as colours."""
    assert isinstance(kind, UnitVector)
    vectors = prediction.transpose(1, 2, 0).astype(np.float32)  # (h, w, 3)
    return kind.draw(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(1e-6))


NORMALS = Task(name="normals", kind=UnitVector, channels=lambda kind: 3, loss=loss, picture=picture)
