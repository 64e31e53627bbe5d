"""From the maps of any frozen encoder to the levels that a detector reads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.simple_pyramid import PyramidBackbone, SimplePyramid

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
