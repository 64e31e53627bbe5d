"""Pyramid pooling (Zhao et al. 2017), the one module shared by all task heads."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["group", "batch"]


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """GroupNorm of groups of about 16 channels, or BatchNorm.

    Groups never shrink to one channel, because a map pooled to one cell would normalise to zero.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)


def _conv(inputs: int, outputs: int, kernel: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        norm_layer(norm, outputs),
        nn.ReLU(),
    )


class PyramidPooling(nn.Module):
    """Concatenate a map with averages of it on coarse grids, and fuse them by a 3x3 convolution.

    As in the authors' library: each grid is reduced to r = C / 4 channels (a multiple of 16),
    interpolated back bilinearly with aligned corners, and fusion ends with Dropout2d. Their norm
    is BatchNorm; GroupNorm is the default here, so that a batch of one and several ranks are exact.

    Args:
        in_channels: C of the map (B, C, h, w).
        width: channels of the output (B, width, h, w).
        pools: sides of the grids; a grid may be finer than the map.
        norm: "group" or "batch".
        dropout: share of output channels dropped while training.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 512,
        pools: tuple[int, ...] = (1, 2, 3, 6),
        norm: Norm = "group",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        reduced = max(16, in_channels // 4 // 16 * 16)
        self.width = width
        self.pools = pools
        self.branches = nn.ModuleList(_conv(in_channels, reduced, 1, norm) for _ in pools)
        self.fuse = _conv(in_channels + len(pools) * reduced, width, 3, norm)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        parts = [x]
        for side, branch in zip(self.pools, self.branches, strict=True):
            coarse = branch(F.adaptive_avg_pool2d(x, side))  # (B, r, side, side)
            size = (x.shape[-2], x.shape[-1])
            parts.append(F.interpolate(coarse, size=size, mode="bilinear", align_corners=True))
        joined = torch.cat(parts, dim=1)  # (B, C + pools * r, h, w)
        return self.dropout(self.fuse(joined.contiguous(memory_format=torch.channels_last)))
