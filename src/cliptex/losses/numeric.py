"""Small rules of arithmetic that the dense losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def not_zero(total: Tensor) -> Tensor:
    """1 in place of 0: a sum over nothing, divided by how much nothing counts, is 0."""
    return torch.where(total == 0, 1, total)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` as it is in single or double precision, else in single."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
