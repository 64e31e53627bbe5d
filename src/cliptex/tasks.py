"""Tasks that CLIPTeX can learn beside the contrastive one: a kind of label and a loss over it.

The kind of the labels says everything else: how many outputs a head has, what its targets are, how
its answers are drawn. Paper, section 4.2: cross-entropy for class maps, L1 for depth and normals.
Raw network disparities reach 10^2 to 10^4 and would swamp the other losses, so depth is learnt as
(value - shift) / scale, with the whole image's median and mean absolute deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

if TYPE_CHECKING:  # configurations know the names of tasks without torch
    from torch import Tensor

    from cliptex.losses import DenseTargets

IGNORE = 65535
"""Marks invalid pixels for the loss; above every class id a label store can hold."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of loss (1) of the paper.

    name: key in configurations, logs and results.
    kind: the class of labels it learns from.
    loss: raw head output (B, C, h, w) and targets at any larger size -> scalar, the mean over all
        valid pixels at the labels' size.
    """

    name: str
    kind: type[Kind]
    loss: Callable[[Tensor, DenseTargets], Tensor]


def cross_entropy(prediction: Tensor, targets: DenseTargets) -> Tensor:
    """Cross-entropy of class logits."""
    import torch

    from cliptex.losses import cell_cross_entropy

    labels = targets.target
    ignore = 255 if labels.dtype == torch.uint8 else IGNORE
    return cell_cross_entropy(
        prediction, labels, ignore=ignore, present=targets.present, weight=targets.weight
    )


def l1(prediction: Tensor, targets: DenseTargets) -> Tensor:
    """Mean absolute error over pixels and components; predictions are not normalised."""
    from cliptex.losses import cell_l1

    return cell_l1(prediction, targets.target, targets.valid, weight=targets.weight)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="segmentation", kind=ClassMap, loss=cross_entropy),
        Task(name="depth", kind=ScalarField, loss=l1),
        Task(name="normals", kind=UnitVector, loss=l1),
        Task(name="edges", kind=ScalarField, loss=l1),  # the example of adding one: CONTRIBUTING
    )
}
"""By name. A program of one's own may add one."""
