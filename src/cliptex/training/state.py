"""What a run carries from step to step beside weights and optimizer, and saves with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cliptex.training.parallel import placed_like, whole_tensors

SMOOTHING = 0.98  # of the running mean of the loss: about the last fifty steps


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


@dataclass
class Progress:
    """Counters of a run: what `state.json` holds beside the step.

    skipped, in_row: steps left out because something was not finite, in all and just now.
    loss: running mean of the total loss; NaN before the first step.
    """

    scale: LossScale
    skipped: int = 0
    in_row: int = 0
    loss: float = field(default=math.nan)

    def add(self, total: float, applied: bool) -> None:
        """Count a step that had the loss `total`."""
        if applied:
            self.in_row = 0
            known = not math.isnan(self.loss)
            self.loss = SMOOTHING * self.loss + (1 - SMOOTHING) * total if known else total
            return
        self.skipped += 1
        # An overflow of float16 that a smaller scale may cure is no sign of a hopeless run.
        self.in_row += not (self.scale.enabled and self.scale.value > 1)

    def notes(self) -> dict[str, float]:
        """All as numbers for a checkpoint."""
        notes = {"skipped": self.skipped, "in_row": self.in_row}
        scale = {"loss_scale": self.scale.value, "good": self.scale.good}
        loss = {} if math.isnan(self.loss) else {"loss": self.loss}
        return {**notes, **scale, **loss}

    def load(self, notes: Mapping[str, float]) -> None:
        """Take what `notes` returned, in part or whole."""
        self.skipped = int(notes.get("skipped", self.skipped))
        self.in_row = int(notes.get("in_row", self.in_row))
        self.loss = notes.get("loss", self.loss)
        if self.scale.enabled:
            self.scale.value = notes.get("loss_scale", self.scale.value)
            self.scale.good = int(notes.get("good", self.scale.good))
