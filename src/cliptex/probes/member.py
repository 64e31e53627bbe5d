"""One head of a bank: its module, its optimizer and its own randomness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cliptex.models.config import HeadName
from cliptex.models.heads import dense_head, upsample
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.examples import BankTask
from cliptex.probes.sources import FeatureBatch


@dataclass(frozen=True)
class HeadKey:
    """Which head, at which learning rate, from which seed."""

    head: HeadName
    lr: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.head}/lr{self.lr!r}/seed{self.seed}"


class Member:
    """A head that learns from the batches of a bank as it would alone.

    `diverged` says that a loss was not finite; the head rests from then on.
    """

    def __init__(
        self, key: HeadKey, in_channels: int, task: BankTask, config: BankConfig, *, stride: int
    ) -> None:
        self.key = key
        self.diverged = False
        self._config = config
        with own_randomness(key.seed, 0):
            self.module = dense_head(
                key.head,
                in_channels,
                task.channels,
                stride=stride,
                width=config.width,
                norm=config.norm,
                dropout=config.dropout,
            )
        self.optimizer = torch.optim.AdamW(
            _groups(self.module, config.weight_decay), lr=key.lr, betas=config.betas
        )

    def learn(self, batch: FeatureBatch, task: BankTask, factor: float, step: int) -> None:
        """One step at `factor` times the rate; dropout depends on the seed and the step alone."""
        if self.diverged:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.key.lr * factor
        self.module.train()
        with own_randomness(self.key.seed, step + 1, device=batch.maps.device):
            out = self.module(batch.maps)  # (B, K, h, w)
        size = (batch.targets.shape[1], batch.targets.shape[2])
        out = upsample(out, size, align_corners=self._config.align_corners)  # (B, K, r, r)
        loss = task.loss(out, batch.targets)
        if not torch.isfinite(loss):
            self.diverged = True
            return
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def predict(self, maps: Tensor) -> Tensor:
        """Raw outputs (B, K, h, w), in evaluation mode and without gradient."""
        with torch.no_grad():
            return self.module.eval()(maps)


@contextmanager
def own_randomness(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's generators at a state that depends on `key` alone, and as before afterwards."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        # Hashed, because torch's generator looks at the lower 32 bits of a seed only.
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for what has two dimensions or more; not for biases and norms."""
    parameters = list(module.parameters())
    decayed = [p for p in parameters if p.ndim >= 2]
    spared = [p for p in parameters if p.ndim < 2]
    groups = ((decayed, weight_decay), (spared, 0.0))
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]
