"""A feature pyramid from one map of a plain ViT (Li et al. 2022, ViTDet), and a top-down path.

Both follow the public detectors of the CLIPTeX authors in parameter names and arithmetic; their
top-down path is not the usual one of Lin et al. 2017, see `PyramidBackbone`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class PixelNorm(nn.Module):
    """Layer norm over the channels of each pixel, as (x - mean) / (deviation + eps).

    The deviation is the biased one, and eps is added to it, not to the variance.
    """

    def __init__(self, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> float32 of the same shape."""
        x = x.float()
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        # A pixel of equal channels has variance 0, where the root has no finite gradient.
        deviation = variance.clamp(min=torch.finfo(torch.float32).tiny).sqrt()
        scale, shift = (p.view(1, -1, 1, 1) for p in (self.weight, self.bias))
        return centred / (deviation + self.eps) * scale + shift


class ConvBlock(nn.Module):
    """A convolution (`block.conv`), then optionally a norm (`block.norm`) and an activation."""

    def __init__(
        self, conv: nn.Module, norm: nn.Module | None = None, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.block = nn.Sequential()
        self.block.add_module("conv", conv)
        if norm is not None:
            self.block.add_module("norm", norm)
        if activation is not None:
            self.block.add_module("act", activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        return self.block(x)


def double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Twice the height and width by a 2x2 transposed convolution of stride 2."""
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


class SimplePyramid(nn.Module):
    """Maps at strides 4, 8, 16, 32 from a map at stride 16; `channels` says their widths."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.channels = {4: quarter, 8: half, 16: width, 32: width}
        self.out_l2 = nn.Sequential(
            ConvBlock(double(width, half), PixelNorm(half), nn.GELU()),
            ConvBlock(double(half, quarter)),
        )
        self.out_l3 = ConvBlock(double(width, half))

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """(B, C, h, w) -> {4: (B, C/4, 4h, 4w), 8: (B, C/2, 2h, 2w), 16: x, 32: half of x}."""
        return {4: self.out_l2(x), 8: self.out_l3(x), 16: x, 32: F.max_pool2d(x, 2)}


class PyramidBackbone(nn.Module):
    """An encoder of maps and the authors' top-down path over them.

    Every map is projected to `width` channels. From coarse to fine, the 3x3-convolved sum of a
    level (not the sum itself) is enlarged by nearest pixel and added to the next. The coarsest
    map's convolution feeds that path alone: what is returned for it is its projection, from which
    a further map of twice its stride is convolved.

    Args:
        encoder: images (B, 3, H, W) -> {stride: (B, C, h, w)}.
        channels: widths of the encoder's maps by stride, each stride twice the one before.
        width: channels of every returned map.
    """

    def __init__(self, encoder: nn.Module, channels: Mapping[int, int], width: int = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.strides = sorted(channels)
        self.out_channels = width
        self.backbone_proj_layers = nn.ModuleDict(
            {
                str(s): ConvBlock(nn.Conv2d(channels[s], width, 1), PixelNorm(width))
                for s in channels
            }
        )
        self.fpn_proj_layers = nn.ModuleDict(
            {
                str(s): ConvBlock(nn.Conv2d(width, width, 3, padding=1), PixelNorm(width))
                for s in channels
            }
        )
        self.extra_stride = 2 * self.strides[-1]
        conv = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.extra_layers = nn.ModuleDict(
            {str(self.extra_stride): ConvBlock(conv, PixelNorm(width))}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {"4": (B, width, H/4, W/4), ..., "64": ...}."""
        return self.merge(self.encoder(images))

    def merge(self, maps: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """The top-down path over the encoder's maps, keyed by stride, finest first."""
        raw = {s: self.backbone_proj_layers[str(s)](maps[s]) for s in self.strides}
        coarsest = self.strides[-1]
        merged = {coarsest: raw[coarsest]}
        above = self.fpn_proj_layers[str(coarsest)](raw[coarsest])
        for stride in reversed(self.strides[:-1]):
            size = (raw[stride].shape[-2], raw[stride].shape[-1])
            added = raw[stride] + F.interpolate(above, size=size, mode="nearest")
            above = merged[stride] = self.fpn_proj_layers[str(stride)](added)
        extra = str(self.extra_stride)
        merged[self.extra_stride] = self.extra_layers[extra](raw[coarsest])
        return {str(stride): merged[stride] for stride in sorted(merged)}
