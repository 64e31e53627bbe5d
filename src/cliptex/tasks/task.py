"""What a task is: a kind of label, the channels of its head, and the loss over labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cliptex.labels.kinds import Kind
from cliptex.losses import DenseTargets


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of loss (1) of the paper.

    name: key in configurations, logs and results.
    kind: the class of labels it learns from.
    channels: how many channels the head has for a kind of label.
    loss: raw head output (B, C, h, w) and targets at any larger size -> scalar.
    picture: raw head output (C, h, w) as an array, and the kind -> (h, w, 3) uint8 for the eye.
    """

    name: str
    kind: type
    channels: Callable[[Kind], int]
    loss: Callable[[Tensor, DenseTargets], Tensor]
    picture: Callable[[np.ndarray, Kind], np.ndarray]
