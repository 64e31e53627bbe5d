"""What the dense losses read beside a prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DenseTargets:
    """One task's labels of a batch, with all that is missing said explicitly.

    Attributes:
        target: (B, H, W) integer classes, or (B, C, H, W) float32.
        valid: (B, H, W) bool; pixels that say something.
        present: (B,) bool; samples that have a label at all. The others cost nothing.
        weight: (B, H, W) float32 in [0, 1], how far each label is to be trusted; None = all alike.
    """

    target: Tensor
    valid: Tensor
    present: Tensor
    weight: Tensor | None = None

    def to(self, device: torch.device | str) -> DenseTargets:
        """The same on another device."""
        weight = self.weight
        return DenseTargets(
            target=self.target.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            present=self.present.to(device, non_blocking=True),
            weight=None if weight is None else weight.to(device, non_blocking=True),
        )

    def counted(self) -> Tensor:
        """() summed weight of the pixels that count: what the losses' means divide by."""
        mask = self.valid & self.present[:, None, None]
        return mask.sum() if self.weight is None else self.weight.masked_fill(~mask, 0).sum()
