"""Feature pyramids of detectors: from the maps of any encoder to levels of strides 4 to 64.

Parameter names and arithmetic are those of the CLIPTeX authors' public detectors; their top-down
path is not the usual one of Lin et al. 2017, see `PyramidBackbone`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.corenet import EPS, ConvBlock


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


SINGLE_STRIDE = 16
"""The stride a lone map is brought to; that of the plain ViTs the simple pyramid is made for."""


class EncoderPyramid(nn.Module):
    """{stride: map} of an encoder -> {"4": (B, width, H/4, W/4), ..., "64": ...}.

    An encoder that gives one map (a plain ViT) gets the simple pyramid of strides 4 to 32; one
    that gives several (the stages of a CNN) is read as it is. A top-down path and one coarser
    level follow (`PyramidBackbone`). Norms are over the channels of a pixel for both kinds: the
    authors' library takes synchronised batch norm behind CNNs, which four images would starve.

    Args:
        channels: widths of the maps by stride; several strides must double from one to the next.
        width: channels of every level.
    """

    def __init__(self, channels: Mapping[int, int], width: int) -> None:
        super().__init__()
        self.simple: SimplePyramid | None = None
        if len(channels) == 1:
            self.simple = SimplePyramid(next(iter(channels.values())))
            channels = self.simple.channels
        check_strides(channels)
        self.path = PyramidBackbone(nn.Identity(), channels, width)
        self.out_channels = width
        self.strides = (*self.path.strides, self.path.extra_stride)

    def forward(self, maps: Mapping[int, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The levels, finest first, of images of `size` (height, width)."""
        maps = on_grid(maps, size)
        if self.simple is not None:
            maps = self.simple(maps[SINGLE_STRIDE])
        return self.path.merge(maps)


def check_strides(channels: Mapping[int, int]) -> None:
    """ValueError unless the strides are powers of two, each twice the one before."""
    strides = sorted(channels)
    doubled = all(fine * 2 == coarse for fine, coarse in zip(strides, strides[1:], strict=False))
    if not doubled or strides[0] & (strides[0] - 1):
        raise ValueError(
            f"an encoder with maps at strides {strides} cannot be put under a pyramid, whose "
            "levels double; let it return one map, or maps at strides such as 4, 8, 16, 32"
        )


def on_grid(maps: Mapping[int, Tensor], size: tuple[int, int]) -> dict[int, Tensor]:
    """Maps whose cells lie on the grid of their stride over images of `size`.

    A lone map is resized (bilinear) to stride 16 where it has another, as with patches of 14
    pixels or a CNN's last stage; RoIAlign and anchors take strides to be powers of two.
    """
    if len(maps) == 1:
        maps = {SINGLE_STRIDE: next(iter(maps.values()))}
    fitted = {}
    for stride, x in maps.items():
        grid = (size[0] // stride, size[1] // stride)
        if tuple(x.shape[-2:]) != grid:
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        fitted[stride] = x
    return fitted
