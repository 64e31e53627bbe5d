"""The rows that scorers become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.metrics.scorers import Better as Better
from cliptex.metrics.scorers import Score as Score
from cliptex.metrics.scorers import Scorer as Scorer
from cliptex.metrics.scorers import crop_mask as crop_mask
from cliptex.per_image import save_per_image
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


def rows_of(
    scorers: Sequence[Scorer], tested: Tested, naming: Naming, shared: Mapping[str, object]
) -> tuple[list[Result], dict[str, np.ndarray]]:
    """Rows of all metrics of all scorers, and per-image values by `row_key`.

    Every row's protocol is `shared`, the scorer's protocol and the metric's rule. ValueError for
    predictions that are not finite: a score over the other images would flatter the model.
    """
    if fault := fault_of(scorers, tested, naming):
        raise ValueError(fault)
    rows: list[Result] = []
    per_image: dict[str, np.ndarray] = {}
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
        "learning rate (--lr), or take another checkpoint"
    )


def row_key(row: Result, first: Result) -> str:
    """The metric, followed by the protocol's name where that is not the `first` row's."""
    name = row.protocol.get("name", "")
    return row.metric if name == first.protocol.get("name", "") else f"{row.metric}, {name}"


def save_rows_per_image(
    folder: Path, rows: Sequence[Result], per_image: Mapping[str, np.ndarray]
) -> list[Path]:
    """One .npz per row that has per-image values."""
    keys = [(row, row_key(row, rows[0])) for row in rows]
    return [save_per_image(folder, row, per_image[key]) for row, key in keys if key in per_image]
