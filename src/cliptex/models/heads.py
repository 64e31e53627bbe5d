"""Dense heads on an encoder's map: pyramid pooling, DeepLabv3's ASPP, point-wise linear."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.config import HEAD_NAMES, WIDTH, HeadName, Norm


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """GroupNorm of groups of about 16 channels, or BatchNorm.

    Groups never shrink to one channel, because a map pooled to one cell would normalise to zero.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)


def conv_norm_relu(
    inputs: int, outputs: int, norm: Norm, kernel: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution without bias that keeps height and width, norm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, norm_layer(norm, outputs), nn.ReLU())


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
        self.branches = nn.ModuleList(conv_norm_relu(in_channels, reduced, norm) for _ in pools)
        self.fuse = conv_norm_relu(in_channels + len(pools) * reduced, width, norm, kernel=3)
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
        self.conv = conv_norm_relu(in_channels, width, norm)

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
                conv_norm_relu(in_channels, width, norm),
                *(conv_norm_relu(in_channels, width, norm, 3, rate) for rate in rates),
                ImagePooling(in_channels, width, norm),
            ]
        )
        self.project = conv_norm_relu(len(self.branches) * width, width, norm)
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
