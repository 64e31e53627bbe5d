"""The losses between images and texts: CLIP's, and SigLIP's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive(
    image: Tensor,
    text: Tensor,
    scale: Tensor | float,
    among: tuple[Tensor, Tensor] | None = None,
    first: int = 0,
) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3); the L_clip of the paper's equation (1).

    Args:
        image, text: (B, D) embeddings of unit length; row i of one belongs to row i of the other.
        scale: () inverse temperature.
        among: all images and all texts, each (N, D), with which these are compared; by default
            only with each other. The mean over the N / B parts of `among` is then the loss of all,
            and nobody builds the whole (N, N) matrix.
        first: row of `among` that holds row 0 of `image` and `text`; the others follow one by one.
    """
    image, text = image.float(), text.float()
    if among is None:
        of_images = scale * image @ text.T  # (B, B)
        of_texts = of_images.T
    else:
        of_images, of_texts = scale * image @ among[1].float().T, scale * text @ among[0].float().T
    own = torch.arange(first, first + len(image), device=image.device)
    return (F.cross_entropy(of_images, own) + F.cross_entropy(of_texts, own)) / 2


def sigmoid_contrastive(
    image: Tensor, text: Tensor, scale: Tensor | float, bias: Tensor | float, first: int = 0
) -> Tensor:
    """Every pair by itself: does this text belong to this image? (Zhai et al. 2023, section 3.2)

    L = -1/B sum_ij log sigmoid(z_ij (scale x_i . y_j + bias)), z = 1 for a pair, else -1.

    Args:
        image: (B, D) embeddings of unit length. text: (N, D), where N >= B.
        scale: () inverse temperature. bias: () added to every logit.
        first: row of `text` that belongs to row 0 of `image`; the others follow one by one.
    """
    logits = scale * image.float() @ text.float().T + bias  # (B, N)
    own = torch.arange(first, first + len(image), device=logits.device)
    belongs = F.one_hot(own, len(text)).to(logits.dtype)  # (B, N)
    return F.binary_cross_entropy_with_logits(logits, belongs, reduction="sum") / len(image)
