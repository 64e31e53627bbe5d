"""What a probe hands back: a head with its rows, and how its learning rate was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptex.metrics.scorers import Score, Scorer
from cliptex.per_image import save_per_image
from cliptex.probes.config import ProbeConfig
from cliptex.probes.method import Head, HeadKey
from cliptex.probes.task import ProbeTask
from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How the model is called in the rows, and what is known about its weights."""

    model: str
    checkpoint: str = ""
    leak: bool = False


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What was tested: task, data set, kind of head (None: no head), number of images, seed."""

    task: str
    dataset: str
    probe: str | None
    n: int
    seed: int


@dataclass(frozen=True)
class Selection:
    """The chosen rate, each rate's score (NaN: its heads diverged), and what was scored."""

    rate: float
    scores: dict[float, float]
    metric: str
    on: str

    def protocol(self) -> dict[str, object]:
        """JSON-able; `lr_at_grid_edge` warns that the optimum may lie outside the grid."""
        grid = sorted(self.scores)
        scores = [self.scores[rate] for rate in grid]
        return {
            "lr": self.rate,
            "lr_grid": grid,
            "lr_scores": [None if math.isnan(score) else score for score in scores],
            "lr_at_grid_edge": len(grid) > 1 and self.rate in (grid[0], grid[-1]),
            "selection": f"{self.metric} on {self.on}",
        }


def best_index(scores: Sequence[Score]) -> int:
    """Index of the best score, the first among equals; NaN loses to everything."""

    def merit(score: Score) -> float:
        if math.isnan(score.value):
            return -math.inf
        return score.value if score.better == "higher" else -score.value

    return max(range(len(scores)), key=lambda i: merit(scores[i]))


@dataclass(frozen=True, kw_only=True)
class ProbeOutcome:
    """A trained head with its rows and per-image values.

    `per_image` maps a metric (see `row_key`) to values in the order of the test images, in the
    forms of `cliptex.per_image.save_per_image`. task: of a dense probe or classification.
    selection: None where there was one rate.
    error: why there are no rows, for a head that diverged at every rate or whose predictions are
        not finite; "" otherwise.
    """

    key: HeadKey
    head: Head
    config: ProbeConfig
    results: list[Result]
    per_image: dict[str, Any]
    task: ProbeTask | None = None
    selection: Selection | None = None
    error: str = ""

    def value(self, metric: str) -> float:
        """The value of the first row with `metric`."""
        return next(row.value for row in self.results if row.metric == metric)

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row that has per-image values."""
        keys = [(row, row_key(row, self.results[0])) for row in self.results]
        images = self.per_image
        return [save_per_image(folder, row, images[key]) for row, key in keys if key in images]


def rows_of(
    scorers: Sequence[Scorer], tested: Tested, naming: Naming, shared: Mapping[str, object]
) -> tuple[list[Result], dict[str, Any]]:
    """Rows of all metrics of all scorers, and per-image values by `row_key`.

    Every row's protocol is `shared`, the scorer's protocol and the metric's rule. ValueError for
    predictions that are not finite: a score over the other images would flatter the model.
    """
    if fault := fault_of(scorers, tested, naming):
        raise ValueError(fault)
    rows: list[Result] = []
    per_image: dict[str, Any] = {}
    for scorer in scorers:
        images = scorer.per_image()
        for metric, score in scorer.metrics().items():
            rule = {"metric": score.rule} if score.rule else {}
            row = Result(
                model=naming.model,
                checkpoint=naming.checkpoint,
                task=tested.task,
                dataset=tested.dataset,
                probe=tested.probe,
                metric=metric,
                value=score.value,
                better=score.better,
                n=tested.n,
                seed=tested.seed,
                protocol={**shared, **scorer.protocol(), **rule},
                leak=naming.leak,
            )
            rows.append(row)
            if metric in images:
                per_image[row_key(row, rows[0])] = images[metric]
    return rows, per_image


def fault_of(scorers: Sequence[Scorer], tested: Tested, naming: Naming) -> str:
    """Why a head whose predictions are not finite on some images has no rows; "" where it has."""
    lost = max((scorer.not_finite for scorer in scorers), default=0)
    if not lost:
        return ""
    head = f"{tested.probe}, seed {tested.seed}" if tested.probe else f"seed {tested.seed}"
    return (
        f"{naming.model}: {tested.task} ({head}) on {tested.dataset}: predictions are not finite "
        f"on {lost} of {tested.n} images: the head or the checkpoint has diverged; set a smaller "
        "learning rate (`learning_rates`), or use another checkpoint"
    )


def row_key(row: Result, first: Result) -> str:
    """The metric, followed by the protocol's name where that is not the `first` row's."""
    name = row.protocol.get("name", "")
    return row.metric if name == first.protocol.get("name", "") else f"{row.metric}, {name}"
