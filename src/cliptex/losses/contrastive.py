"""The loss of CLIP."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3); the L_clip of the paper's equation (1).

    Args:
        image, text: (B, D) embeddings of unit length; row i of one belongs to row i of the other.
        scale: () inverse temperature.
    """
    logits = scale * image.float() @ text.float().T  # (B, B)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
