"""The network of a run: CLIP, alone or with pyramid and heads, and what is learnt beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cliptex.models.clip import Clip, build_clip
from cliptex.models.cliptex import Cliptex, CliptexOutput, build_cliptex
from cliptex.models.config import ClipConfig, DenseConfig
from cliptex.models.flops import count_flops
from cliptex.training.config import RANGE_AUGMENT, TrainConfig
from cliptex.training.range_augment import RangeAugment

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
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


class Uncertainty(nn.Module):
    """One log-variance per task, without dimension, so that no way of sharding touches it."""

    def __init__(self, tasks: Iterable[str]) -> None:
        super().__init__()
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in tasks}
        )

    def forward(self, task: str, loss: Tensor, *, constant: bool = True) -> Tensor:
        """() exp(-s) loss + s / 2; without the second term where `constant` is False.

        A batch that is computed in parts counts the second term once.
        """
        s = self.log_variance[task]
        weighed = torch.exp(-s) * loss
        return weighed + s / 2 if constant else weighed


def build_network(config: TrainConfig, channels: Mapping[str, int]) -> Network:
    """The starting point of a run; what is not loaded is drawn from the seed only.

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


def meta_network(clip: ClipConfig, dense: DenseConfig, channels: Mapping[str, int]) -> Network:
    """The network of a run on the meta device: shapes without memory. channels: task -> outputs."""
    with torch.device("meta"):
        model = Clip(clip)
        if not channels:
            return ClipOnly(model).train()
        return build_cliptex(model, channels, dense, seed=0).train()


def blank_inputs(network: Network, batch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and tokens (B, L) on the meta device."""
    length = network.clip.tokenize([""]).shape[1]
    images = torch.empty(batch, 3, *size, device="meta")
    return images, torch.empty(batch, length, dtype=torch.int64, device="meta")


@dataclass
class FlopCount:
    """FLOPs that training spends on an image, by size; each size is counted once.

    Three times the forward pass: the backward pass takes two products for every one of it. What
    activation checkpointing computes again is no progress and is not counted.
    """

    clip: ClipConfig
    dense: DenseConfig
    channels: Mapping[str, int]
    _known: dict[tuple[int, int], float] = field(default_factory=dict)

    def check(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Count all of `sizes`; ValueError for one that the image tower cannot take."""
        for height, width in sizes:
            try:
                self.per_image((height, width))
            except (ValueError, RuntimeError, AssertionError) as error:
                raise ValueError(
                    f"`resolution`: the image tower cannot take {height} x {width} pixels: "
                    f"{error}; recipes.paper rounds resolutions to multiples of `around.divisor`"
                ) from error

    def per_image(self, size: tuple[int, int]) -> float:
        """FLOPs (a multiply-add is two) for an image of (height, width) and its caption."""
        if size not in self._known:
            network = meta_network(self.clip, self.dense, self.channels)
            forward, _ = count_flops(network, *blank_inputs(network, 1, size))
            self._known[size] = 3.0 * forward
        return self._known[size]


def bias_of(clip: Clip, config: TrainConfig) -> Tensor | None:
    """The bias that the run's form of the loss needs."""
    return None if config.contrast == "softmax" else clip.logit_bias


def prepare_bias(clip: Clip, config: TrainConfig) -> None:
    """Give `clip` a bias where the loss needs one, and hold still one that it does not need.

    Raises ValueError for a model whose format has no place for a bias.
    """
    if config.contrast == "softmax":
        if clip.logit_bias is not None:  # of SigLIP's checkpoints
            clip.logit_bias.requires_grad_(False)
        return
    if clip.logit_bias is None:
        if clip.config.family == "corenet":
            raise ValueError(
                "`contrast=sigmoid` needs a bias, which models of the authors' library cannot "
                "hold; use softmax, or start from another model"
            )
        clip.logit_bias = nn.Parameter(clip.logit_scale.detach().new_tensor(config.sigmoid_bias))
        clip.config = clip.config.model_copy(update={"init_logit_bias": config.sigmoid_bias})
