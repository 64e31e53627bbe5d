"""Choosing the learning rate, on data that is never the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliptex.probes.config import ProbeConfig
from cliptex.probes.fit import Heads, Loss, TrainData, fit_heads
from cliptex.probes.scores import Score, Scorer

# Scores heads: on the given rows of train, or (None) on the validation split.
Validate = Callable[[Heads, Tensor | None], Sequence[Scorer]]


@dataclass(frozen=True)
class Selection:
    """The chosen rate, the score of each rate and what they were scored on."""

    rate: float
    scores: dict[float, float]
    metric: str
    on: str

    def protocol(self) -> dict[str, object]:
        """JSON-able; `lr_at_grid_edge` warns that the optimum may lie outside the grid."""
        grid = sorted(self.scores)
        return {
            "lr": self.rate,
            "lr_grid": grid,
            "lr_scores": [self.scores[rate] for rate in grid],
            "lr_at_grid_edge": len(grid) > 1 and self.rate in (grid[0], grid[-1]),
            "selection": f"{self.metric} on {self.on}",
        }


def chosen_head(
    data: TrainData,
    loss: Loss,
    channels: int,
    config: ProbeConfig,
    *,
    validate: Validate,
    split: bool,
    device: torch.device,
) -> tuple[Heads, Selection]:
    """The head of the best rate, on `device`; `split` says whether there is a validation split.

    Without one, a share `holdout` of train is drawn by the seed, heads are trained on the rest
    and scored on it, and the best rate is trained again on the whole of train (`refit`).
    """
    n = len(data.maps)
    everything = torch.arange(n)
    fit_rows, held_rows, on = everything, None, "the validation split"
    if not split:
        if n < 2:
            raise ValueError(
                f"{n} training images cannot be split for selection: name a validation split "
                "(`val`, --val-split)"
            )
        held = held_count(n, config.holdout)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(config.seed))
        fit_rows, held_rows = order[held:], order[:held]
        on = f"{held} held-out images of train"
    rates = config.learning_rates
    heads = fit_heads(data, loss, channels, config, rates=rates, rows=fit_rows, device=device)
    firsts = [next(iter(s.metrics().items())) for s in validate(heads, held_rows)]
    best = best_index([score for _, score in firsts])
    scores = {rate: score.value for rate, (_, score) in zip(rates, firsts, strict=True)}
    selection = Selection(rates[best], scores, firsts[0][0], on)
    if held_rows is None or not config.refit:
        return heads[best], selection
    best_rate = [rates[best]]
    final = fit_heads(data, loss, channels, config, rates=best_rate, rows=everything, device=device)
    return final, selection


def held_count(count: int, share: float) -> int:
    """How many of `count` training pictures a rate is chosen on: about `share`, one at least and
    never all of them."""
    return min(count - 1, max(1, round(share * count)))


def best_index(scores: Sequence[Score]) -> int:
    """Index of the best score, the first among equals; NaN loses to everything."""

    def merit(score: Score) -> float:
        if math.isnan(score.value):
            return -math.inf
        return score.value if score.better == "higher" else -score.value

    return max(range(len(scores)), key=lambda i: merit(scores[i]))
