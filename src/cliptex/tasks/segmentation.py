"""Semantic segmentation from class maps: cross-entropy (paper, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cliptex.labels.kinds import ClassMap, Kind
from cliptex.losses import DenseTargets, cell_cross_entropy
from cliptex.tasks.task import Task

IGNORE = 65535
"""Marks invalid pixels for the loss; above every class id a label store can hold."""


def channels(kind: Kind) -> int:
    """One logit a class, background included."""
    assert isinstance(kind, ClassMap)
    return len(kind.classes)


def loss(prediction: Tensor, targets: DenseTargets) -> Tensor:
    """Cross-entropy over all valid pixels at the labels' size."""
    labels = targets.target
    ignore = 255 if labels.dtype == torch.uint8 else IGNORE
    return cell_cross_entropy(
        prediction, labels, ignore=ignore, present=targets.present, weight=targets.weight
    )


def picture(prediction: np.ndarray, kind: Kind) -> np.ndarray:
    """The most likely class of every cell."""
    assert isinstance(kind, ClassMap)
    return kind.draw(prediction.argmax(0).astype(kind.dtype))


SEGMENTATION = Task(
    name="segmentation", kind=ClassMap, channels=channels, loss=loss, picture=picture
)
