"""Which parameters weight decay draws to zero: one rule for training and for probes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def decay_groups(
    parameters: Iterable[nn.Parameter], weight_decay: float, *, biases: bool = False
) -> list[dict[str, Any]]:
    """Groups for an optimizer, `params` with their `weight_decay`; none without members.

    Parameters of fewer than two dimensions do not decay: biases, gains of norms, the logit scale.
    With `biases` all do. Parameters that do not learn are left out.
    """
    learning = [p for p in parameters if p.requires_grad]
    decayed = [p for p in learning if biases or p.ndim >= 2]
    spared = [p for p in learning if not biases and p.ndim < 2]
    groups = ((decayed, weight_decay), (spared, 0.0))
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]
