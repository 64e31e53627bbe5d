"""Task heads on the pyramid's map: point-wise, or three convolutions (paper, Table 6)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cliptex.models.pyramid import Norm, norm_layer


def light_head(in_channels: int, out_channels: int, norm: Norm = "group") -> nn.Module:
    """One 1x1 convolution: (B, in_channels, h, w) -> (B, out_channels, h, w)."""
    return nn.Conv2d(in_channels, out_channels, 1)


def heavy_head(in_channels: int, out_channels: int, norm: Norm = "group") -> nn.Module:
    """Three standard convolutions, the first two 3x3 with norm and ReLU, the last point-wise."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
        norm_layer(norm, in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
        norm_layer(norm, in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1),
    )


HEADS: dict[str, Callable[[int, int, Norm], nn.Module]] = {
    "light": light_head,
    "heavy": heavy_head,
}
