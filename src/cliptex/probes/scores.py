"""What scorers have in common: values, the interface, crops, and the rows they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from typing import Protocol as Interface

import numpy as np
from torch import Tensor

from cliptex.per_image import save_per_image
from cliptex.probes.protocol import Crop
from cliptex.results import Result

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Score:
    """A metric's value, which way is better, and `rule`: what it is a mean of, for its row."""

    value: float
    better: Better
    rule: str = ""


class Scorer(Interface):
    """Adds up one head's predictions over images; `metrics` lists the one to select by first.

    not_finite: images whose prediction holds NaN or infinity. From the first one on all metrics
    are NaN, so that such a head loses every choice, and `rows_of` refuses it.
    """

    not_finite: int

    def add(self, prediction: Tensor, target: np.ndarray) -> None:
        """One image: raw outputs (K, H, W) on any device and its ground truth, as its kind has it.

        H, W are those of the ground truth.
        """
        ...

    def metrics(self) -> dict[str, Score]: ...

    def per_image(self) -> dict[str, np.ndarray]:
        """Metric -> what every image adds to it, as `cliptex.per_image.save_per_image` wants it."""
        ...

    def protocol(self) -> dict[str, object]:
        """What the values depend on, JSON-able; `name` is that of the scoring `Protocol`."""
        ...


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


def crop_mask(target: np.ndarray, crop: Crop | None) -> np.ndarray | None:
    """(H, W) bool, True inside (top, bottom, left, right); None without a crop.

    ValueError where the crop does not lie in the picture: it is meant for pictures of one size.
    """
    if crop is None:
        return None
    top, bottom, left, right = crop
    height, width = target.shape[:2]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(
            f"the crop of rows {top}:{bottom}, columns {left}:{right} does not lie in a ground "
            f"truth of {height} x {width}; choose another protocol (--protocol)"
        )
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
