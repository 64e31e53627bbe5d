"""The loss between images and texts of a step, in either form, on one rank or many."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cliptex.losses import contrastive, sigmoid_contrastive
from cliptex.models.clip import Clip
from cliptex.training.config import TrainConfig
from cliptex.training.distributed import World, contrastive_share, gather_rows


def contrast(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    rows: Sequence[int],
    world: World,
) -> Tensor:
    """() this rank's share of the loss; its mean over ranks is the loss of the global batch.

    Args:
        image, text: (B_rank, D) unit embeddings. scale: (). rows: samples of every rank.
        bias: () of the sigmoid form; None asks for the softmax form.
    """
    image, text, scale = image.float(), text.float(), scale.float()
    if bias is None:
        if world.size == 1:
            return contrastive(image, text, scale)
        return contrastive_share(image, text, scale, rows, world)
    if world.size == 1:
        return sigmoid_contrastive(image, text, scale, bias)
    # Own images against all texts: every pair is some rank's, and images need not travel.
    texts = gather_rows(text, rows, world)  # (B, D)
    loss = sigmoid_contrastive(image, texts, scale, bias, sum(rows[: world.rank]))
    return loss * (world.size * len(image) / sum(rows))


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
                "contrast: the sigmoid loss needs a bias, and a model of the authors' library has "
                "no place for one; take softmax, or another model to start from"
            )
        clip.logit_bias = nn.Parameter(clip.logit_scale.detach().new_tensor(config.sigmoid_bias))
        clip.config = clip.config.model_copy(update={"init_logit_bias": config.sigmoid_bias})
