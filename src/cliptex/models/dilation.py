"""ResNets whose last stages keep their resolution: strides become dilations (à trous).

Every second row and column of a dilated stage's output is what the undilated network gives, weights
and all; those between are new. So the weights fit as they are, and what pools the map may read the
old places alone. Each stage costs 4 or 16 times as much.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NATIVE = 32  # output stride of every ResNet


class StillAverage(nn.Module):
    """Average of 2 x 2 places that lie `dilation` apart, at every place; borders are repeated.

    At even places, and for dilation 1, what `AvgPool2d(2)` gives.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        d, (height, width) = self.dilation, x.shape[-2:]
        padded = F.pad(x, (0, d, 0, d), mode="replicate")
        shifted = [padded[..., i : i + height, j : j + width] for i in (0, d) for j in (0, d)]
        return torch.stack(shifted).mean(0)


def dilate(resnet: Any, output_stride: int) -> None:
    """Make the last map of `resnet` lie at `output_stride` (8, 16, 32), in place.

    resnet: open_clip's ModifiedResNet or timm's ResNet: stages `layer3` and `layer4` of blocks.
    Raises ValueError for blocks that are not known here.
    """
    stages = {32: (), 16: ("layer4",), 8: ("layer3", "layer4")}[output_stride]
    dilation = 1
    for name in stages:
        first, *others = getattr(resnet, name)
        _stand_still(first, dilation)
        dilation *= 2
        for block in others:
            for child in block.children():
                _spread(child, dilation)


def _stand_still(block: nn.Module, dilation: int) -> None:
    """Take the stride out of a stage's first block; convolutions after it are dilated twice."""
    after = dilation
    for name, child in list(block.named_children()):
        if name == "downsample":
            for inner, part in list(child.named_children()):
                _unstride(child, inner, part, dilation)
            continue
        _spread(child, after)
        if _unstride(block, name, child, dilation):
            after = 2 * dilation


def _unstride(parent: nn.Module, name: str, child: nn.Module, dilation: int) -> bool:
    """Take a stride of 2 out of one part; False where it has none."""
    if isinstance(child, nn.AvgPool2d):
        setattr(parent, name, StillAverage(dilation))
        return True
    if isinstance(child, nn.Conv2d):
        if child.stride == (1, 1):
            return False
        child.stride = (1, 1)
        return True
    if any(getattr(part, "stride", 1) not in (1, (1, 1)) for part in child.modules()):
        raise ValueError(
            f"output_stride: a block with {type(child).__name__} cannot be dilated; leave it at 32"
        )
    return False


def _spread(child: nn.Module, dilation: int) -> None:
    if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
        child.dilation = (dilation, dilation)
        child.padding = tuple(dilation * (side // 2) for side in child.kernel_size)
