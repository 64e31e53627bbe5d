"""Learning rates of a probe, step by step, in the terms of the paper's Table 8."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Schedule(BaseModel):
    """Linear warm-up, then a half cosine to `min_lr` or drops at epochs.

    lr: the maximum. warmup_steps: steps from `warmup_init_lr` up to it. min_lr: at the last step
    of a cosine. milestones, gamma: epochs (from 0) at whose start a multi-step rate is multiplied.
    The authors' library moves its cosine once per epoch; here it moves with every step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cosine", "multi-step"] = "cosine"
    lr: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_init_lr: float = Field(default=0.0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "multi-step") != bool(self.milestones):
            raise ValueError("milestones: give them for kind='multi-step', and only there")
        return self

    def check(self, steps: int) -> None:
        """ValueError where the warm-up would not end within `steps`."""
        if self.warmup_steps >= steps:
            raise ValueError(
                f"warmup_steps: {self.warmup_steps} steps of warm-up do not fit into {steps} "
                "steps; set fewer of them (--warmup-steps), or more epochs"
            )

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The rate of `step` (0 .. steps - 1) over `lr`.

        Rates of a grid other than `lr` use the same factor, so warm-up start and minimum scale
        with them.
        """
        if step < self.warmup_steps:
            start = self.warmup_init_lr / self.lr
            return start + step / self.warmup_steps * (1 - start)
        if self.kind == "multi-step":
            return self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)
        length = steps - 1 - self.warmup_steps
        share = (step - self.warmup_steps) / length if length > 0 else 1.0
        low = self.min_lr / self.lr
        return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2
