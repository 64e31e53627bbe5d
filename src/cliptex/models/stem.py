"""A convolutional stem for ViT in place of the patchify convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHANNELS_LAST = torch.channels_last


class ConvStem(nn.Sequential):
    """Stride-2 3x3 convolutions down to one cell per patch, then 1x1 to the token width.

    Xiao et al. 2021, "Early convolutions help transformers see better": widths double up to the
    token width, each convolution is followed by a norm and an activation. GroupNorm stands where
    the paper has BatchNorm, so that an image's features never depend on its batch.

    Input (B, 3, H, W), output (B, width, H / patch_size, W / patch_size).
    """

    def __init__(self, width: int, patch_size: int) -> None:
        halvings = patch_size.bit_length() - 1
        if patch_size != 1 << halvings or halvings < 1:
            raise ValueError(
                f"conv_stem halves the image again and again: patch_size must be a power of two, "
                f"not {patch_size}"
            )
        layers: list[nn.Module] = []
        before = 3
        for step in range(halvings):
            after = max(16, width >> (halvings - 1 - step)) // 8 * 8
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.GELU(),
            ]
            before = after
        layers.append(nn.Conv2d(before, width, 1))
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / patch_size, W / patch_size)."""
        # Channels last is what oneDNN convolves fastest, and makes tokens of the output for free.
        return super().forward(input.contiguous(memory_format=_CHANNELS_LAST))
