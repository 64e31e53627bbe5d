"""AdamW without decay where it does harm, and the cosine schedule of Table 7, per step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cliptex.models.decay import decay_groups
from cliptex.training.config import TrainConfig
from cliptex.training.parallel import by_kind, placed_like, whole_tensors


def lr_at(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of `step` (0 .. steps - 1).

    Linear from warmup_init_lr at step 0 to lr at step `warmup_steps`, then half a cosine down
    to min_lr at the last step. The authors' library does so for CLIP (is_iteration_based), but
    spreads the cosine over two more steps, so that its last rate is a little above min_lr.
    """
    if step < config.warmup_steps:
        share = step / config.warmup_steps
        return config.warmup_init_lr + share * (config.lr - config.warmup_init_lr)
    length = steps - 1 - config.warmup_steps
    share = (step - config.warmup_steps) / length if length > 0 else 1.0
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * share)) / 2


def build_optimizer(
    clip: nn.Module, added: Iterable[nn.Module], config: TrainConfig
) -> torch.optim.AdamW:
    """AdamW over CLIP and the modules added to it (pyramid and heads).

    Every group carries `lr_scale`, its learning rate over the schedule's.
    """
    scaled = [(clip, 1.0), *((module, config.head_lr_multiplier) for module in added)]
    groups = [
        {**group, "params": members, "lr_scale": lr_scale}
        for module, lr_scale in scaled
        for group in decay_groups(module.parameters(), config.weight_decay)
        for members in by_kind(group["params"])
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the schedule's rate times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


@dataclass
class LossScale:
    """Dynamic loss scaling for float16, with the rules of `torch.amp.GradScaler`.

    That class looks for overflow in the gradients of one process; here the norm of the whole
    gradient is known on every rank, so that all take the same decision, sharded or not.

    value: what the loss is multiplied by; 1 and unchanging where `enabled` is False.
    good: steps in a row without overflow.
    """

    enabled: bool
    value: float = 65_536.0
    good: int = 0

    def __post_init__(self) -> None:
        if not self.enabled:
            self.value = 1.0

    def update(self, finite: bool) -> None:
        """Halve after an overflow, double after 2000 steps without one."""
        if not self.enabled:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(1.0, self.value / 2)
        elif self.good == 2000:
            self.value, self.good = self.value * 2, 0


class Ema:
    """A moving average of the parameters, kept where and as they are (sharded or not)."""

    def __init__(self, model: nn.Module, momentum: float) -> None:
        self.momentum = momentum
        self._parameters = dict(model.named_parameters())
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """average += momentum * (parameter - average)."""
        for name, parameter in self._parameters.items():
            self._averages[name].lerp_(parameter, self.momentum)

    def tensors(self) -> dict[str, Tensor]:
        """Name -> full average on the CPU of rank 0; all ranks must ask together."""
        return whole_tensors(self._averages)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `tensors` returned."""
        for name, average in self._averages.items():
            average.copy_(placed_like(tensors[name], average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model's parameters are the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            before = parameter.detach().clone()
            parameter.copy_(self._averages[name])
            self._averages[name].copy_(before)
