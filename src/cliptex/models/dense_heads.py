"""Probing heads for dense tasks: point-wise linear, DeepLabv3 and PSPNet (paper, section 4.3)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.pyramid import Norm, PyramidPooling, norm_layer

HeadName = Literal["linear", "deeplabv3", "pspnet"]
HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)
WIDTH = 512  # channels of ASPP's and pyramid pooling's output in the authors' library


def aspp_rates(stride: int) -> tuple[int, int, int]:
    """Dilations of the three atrous branches: (6, 12, 18) at an output stride of 16.

    (12, 24, 36) at 8, as in Chen et al. 2017; other strides cover the same pixels of the picture.
    """
    first, second, third = (max(1, round(rate * 16 / stride)) for rate in (6, 12, 18))
    return first, second, third


class ImagePooling(nn.Module):
    """The map's mean through a 1x1 convolution, spread over the map again."""

    def __init__(self, in_channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.conv = _conv(in_channels, width, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        mean = self.conv(x.mean((2, 3), keepdim=True))  # (B, width, 1, 1)
        return mean.expand(-1, -1, x.shape[2], x.shape[3])


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017), as the authors' library has it.

    1x1, three dilated 3x3 and image pooling, each to `width` channels with norm and ReLU, are
    concatenated and projected to `width`; Dropout2d ends it. The norm is GroupNorm by default:
    BatchNorm over the pooled mean has one value per channel and fails for a batch of one, and its
    statistics would tie a head to the batch size.
    """

    def __init__(
        self,
        in_channels: int,
        rates: tuple[int, ...],
        width: int = WIDTH,
        norm: Norm = "group",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv(in_channels, width, norm),
                *(_conv(in_channels, width, norm, rate) for rate in rates),
                ImagePooling(in_channels, width, norm),
            ]
        )
        self.project = _conv(len(self.branches) * width, width, norm)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, width, h, w)."""
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)  # (B, 5 * width, h, w)
        return self.dropout(self.project(joined))


def dense_head(
    name: HeadName,
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    width: int = WIDTH,
    norm: Norm = "group",
    dropout: float = 0.1,
) -> nn.Module:
    """A fresh head (B, in_channels, h, w) -> (B, out_channels, h, w) from the global generator.

    stride: pixels per cell of the map, which sets DeepLabv3's dilations.
    width, norm, dropout: of DeepLabv3 and PSPNet; a linear head is one 1x1 convolution with bias.
    """
    if name == "linear":
        return nn.Conv2d(in_channels, out_channels, 1)
    if name == "deeplabv3":
        body: nn.Module = Aspp(in_channels, aspp_rates(stride), width, norm, dropout)
    elif name == "pspnet":
        body = PyramidPooling(in_channels, width, norm=norm, dropout=dropout)
    else:
        raise ValueError(f"head {name!r}: choose from {HEAD_NAMES}")
    return nn.Sequential(body, nn.Conv2d(width, out_channels, 1))


def upsample(out: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Bilinear interpolation of (B, K, h, w) to `size`; as it is where it has that size.

    As two matrix products, which on a CPU take a sixth of the time of F.interpolate and of its
    backward pass, and give the same up to rounding.
    """
    if tuple(out.shape[-2:]) == tuple(size):
        return out
    rows = interpolation(out.shape[-2], size[0], align_corners).to(out.device, out.dtype)
    columns = interpolation(out.shape[-1], size[1], align_corners).to(out.device, out.dtype)
    return rows @ (out @ columns.T)  # (H, h) x (B, K, h, W)


@lru_cache(maxsize=256)  # pictures of a test set differ in size
def interpolation(inputs: int, outputs: int, align_corners: bool = False) -> Tensor:
    """Matrix (outputs, inputs) of bilinear interpolation along one axis; do not change it."""
    identity = torch.eye(inputs)[None]  # (1, channels = inputs, inputs)
    return F.interpolate(identity, size=outputs, mode="linear", align_corners=align_corners)[0].T


def _conv(inputs: int, outputs: int, norm: Norm, rate: int | None = None) -> nn.Sequential:
    """Convolution without bias, norm, ReLU: 1x1, or 3x3 with a dilation of `rate`."""
    if rate is None:
        conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    else:
        conv = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(conv, norm_layer(norm, outputs), nn.ReLU())
