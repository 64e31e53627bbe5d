"""Weights of the tasks' losses that are learnt with the network (Kendall et al. 2018).

With s_t the logarithm of the variance that a task's labels have around its prediction, each term
λ_t L_t of loss (1) becomes λ_t (exp(-s_t) L_t + s_t / 2). Where s_t has settled, exp(-s_t) is
1 / (2 L_t): every task then pulls alike, whatever the size of its loss. All s_t start at 0, where
the gradient is that of loss (1). The contrastive loss keeps λ_clip: it compares samples and has no
labels whose noise could be learnt.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


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
