"""Depth from scalar fields of disparity: L1 on the normalised label (paper, section 4.2).

Raw network disparities reach 10^2 to 10^4 and would swamp the other losses, so the label is
(value - shift) / scale with the whole image's median and mean absolute deviation, stored with it.
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
    """Normalised disparity; larger is nearer."""
    assert isinstance(kind, ScalarField)
    return kind.draw(prediction[0].astype(np.float32))


DEPTH = Task(name="depth", kind=ScalarField, channels=lambda kind: 1, loss=loss, picture=picture)
