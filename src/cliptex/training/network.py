"""The network of a run: CLIP, alone or with pyramid and heads, and what is learnt beside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cliptex.models.clip import Clip, build_clip
from cliptex.models.cliptex import Cliptex, CliptexOutput, build_cliptex
from cliptex.training.config import RANGE_AUGMENT, TrainConfig
from cliptex.training.contrast import prepare_bias
from cliptex.training.range_augment import RangeAugment
from cliptex.training.uncertainty import Uncertainty

UNCERTAINTY = "uncertainty"  # like RANGE_AUGMENT a child of a network that has one


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
    prepare_bias(clip, config)
    network: Network = ClipOnly(clip)
    if channels:
        network = build_cliptex(clip, channels, config.dense, seed=config.seed)
    if config.uncertainty:
        network.add_module(UNCERTAINTY, Uncertainty(channels))
    if config.range_augment is not None:
        augment = RangeAugment(config.range_augment)
        network.add_module(RANGE_AUGMENT, augment)
        network.register_forward_pre_hook(lambda _, inputs: (augment(inputs[0]), *inputs[1:]))
    return network


def range_augment_of(network: nn.Module) -> RangeAugment | None:
    """The augmentation that `network` applies to its images, if any."""
    return dict(network.named_children()).get(RANGE_AUGMENT)  # pyright: ignore[reportReturnType]


def uncertainty_of(network: nn.Module) -> Uncertainty | None:
    """The learnt weights of the tasks, if any."""
    return dict(network.named_children()).get(UNCERTAINTY)  # pyright: ignore[reportReturnType]
