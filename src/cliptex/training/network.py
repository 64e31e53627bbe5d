"""The network of a run: CLIP with pyramid and heads, or CLIP alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cliptex.models.clip import Clip, build_clip
from cliptex.models.cliptex import Cliptex, CliptexOutput, build_cliptex
from cliptex.training.config import TrainConfig


class ClipOnly(nn.Module):
    """What `Cliptex` is without a task: the network of CLIP-FT and of pretraining."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, tokens: Tensor) -> CliptexOutput:
        """Images (B, 3, H, W) float in [0, 1] and tokens (B, L); no predictions."""
        image, text, scale = self.clip(images, tokens)
        return CliptexOutput(image, text, scale, {})


Network = Cliptex | ClipOnly


def build_network(config: TrainConfig, channels: Mapping[str, int]) -> Network:
    """The starting point of a run; what is not loaded is drawn from the seed alone.

    channels: task -> outputs of its head. CLIP and pyramid start the same whatever the tasks.
    """
    clip = build_clip(config.model)
    if not channels:
        return ClipOnly(clip)
    return build_cliptex(clip, channels, config.dense, seed=config.seed)
