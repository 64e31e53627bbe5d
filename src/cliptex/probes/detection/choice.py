"""Choosing the learning rate of detection heads away from the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cliptex.datasets.protocol import DetectionDataset
from cliptex.probes.detection.ap import coco_ap
from cliptex.probes.detection.config import DetectionProbe
from cliptex.probes.detection.predict import detect_all
from cliptex.probes.detection.train import Candidate, MapReader
from cliptex.probes.select import held_count

SPLIT = 3  # stream of random numbers drawn from the data's seed; see `batches`


@dataclass(frozen=True)
class Choice:
    """The rate, the score of each one compared (None: a head diverged), which metric, on what."""

    rate: float
    scores: dict[float, float | None] = field(default_factory=dict)
    metric: str = ""
    on: str = ""

    def protocol(self) -> dict[str, object]:
        """What belongs into a row."""
        if not self.on:
            return {"lr": self.rate, "selection": "none: one rate"}
        grid = sorted(self.scores)
        return {
            "lr": self.rate,
            "lr_grid": grid,
            "lr_scores": [self.scores[rate] for rate in grid],
            "lr_at_grid_edge": self.rate in (grid[0], grid[-1]),
            "selection": f"{self.metric} on {self.on}, mean over seeds",
        }


def split_rows(
    train: DetectionDataset, val: DetectionDataset | None, config: DetectionProbe
) -> tuple[list[int], list[int]]:
    """Rows of pictures with objects to learn from, and rows of train to compare rates on."""
    rows = train.with_objects()
    if len(config.grid) == 1 or val is not None:
        return rows, []
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} pictures of {train.name} cannot be split for selection")
    count = held_count(len(rows), config.holdout)
    order = np.random.default_rng([config.data_seed, SPLIT]).permutation(rows).tolist()
    return sorted(order[count:]), sorted(order[:count])


def choose_rate(
    reader: MapReader,
    candidates: Sequence[Candidate],
    dataset: DetectionDataset,
    rows: Sequence[int],
    config: DetectionProbe,
) -> Choice:
    """The rate of the best mean over seeds of mask AP, or of box AP where there are no masks.

    Scored on `rows` of `dataset`, or on all of it where they are empty. Only the rates at which
    the fewest heads diverged are compared, by the other heads.
    """
    if len(config.grid) == 1:
        return Choice(config.grid[0])
    lost = {r: sum(c.diverged for c in candidates if c.key.lr == r) for r in config.grid}
    sound = [c for c in candidates if not c.diverged and lost[c.key.lr] == min(lost.values())]
    metric = "ap_mask" if config.masks else "ap_box"
    label = f"{config.name}: choice of the learning rate"
    indices = list(rows) or list(range(len(dataset)))
    heads = [candidate.module for candidate in sound]
    found = detect_all(reader, heads, dataset, indices, config, label=label)
    truth = dataset.ground_truth(indices)
    values = [coco_ap(truth, entries, config.overlaps)[metric] for entries in found]
    means: dict[float, float] = {}
    for rate in config.grid:
        mine = [v for c, v in zip(sound, values, strict=True) if c.key.lr == rate]
        if mine:
            means[rate] = float(np.mean(mine))
    best = max(config.grid, key=lambda rate: means.get(rate, -1.0))
    on = f"{len(rows)} held-out images of train" if rows else "the validation split"
    return Choice(best, {rate: means.get(rate) for rate in config.grid}, metric, on)
