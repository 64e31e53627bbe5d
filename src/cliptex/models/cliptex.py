"""CLIPTeX: CLIP, one pyramid on the image encoder's map, and a head per task (paper, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.clip import Clip
from cliptex.models.config import DenseConfig, Norm
from cliptex.models.heads import PyramidPooling, norm_layer


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


class CliptexOutput(NamedTuple):
    """Unit embeddings (B, D) float32, scale (), and raw predictions (B, C, h, w) per task."""

    image_embedding: Tensor
    text_embedding: Tensor
    scale: Tensor
    predictions: dict[str, Tensor]


class Cliptex(nn.Module):
    """A Clip, a pyramid and heads; only the Clip is kept when training is done."""

    def __init__(self, clip: Clip, pyramid: PyramidPooling, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.clip = clip
        self.pyramid = pyramid
        self.heads = nn.ModuleDict(heads)

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Raw predictions of all tasks: (B, 3, H, W) -> task -> (B, C, h, w)."""
        return self._heads(self.clip.image(images).maps[self.clip.image.stride])

    def _heads(self, dense: Tensor) -> dict[str, Tensor]:
        shared = self.pyramid(dense)  # (B, width, h, w)
        return {task: head(shared) for task, head in self.heads.items()}

    def forward(self, images: Tensor, tokens: Tensor) -> CliptexOutput:
        """Images (B, 3, H, W) float in [0, 1] and tokens (B, L) through all parts, once."""
        features = self.clip.image(images)
        return CliptexOutput(
            F.normalize(features.embedding.float(), dim=-1),
            self.clip.encode_text(tokens),
            self.clip.scale,
            self._heads(features.maps[self.clip.image.stride]),
        )


def build_cliptex(
    clip: Clip, channels: Mapping[str, int], config: DenseConfig, *, seed: int
) -> Cliptex:
    """`clip` with a pyramid and heads drawn from `seed` alone; `channels`: task -> outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pyramid = PyramidPooling(
            clip.image.channels, config.width, config.pools, config.norm, config.dropout
        )
        make = HEADS[config.head]
        heads = {task: make(config.width, n, config.norm) for task, n in channels.items()}
    return Cliptex(clip, pyramid, heads)
