"""A detection probe from a frozen encoder to rows of results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import DetectionDataset
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.detection.ap import PROTOCOL, Overlap, coco_ap
from cliptex.probes.detection.batches import StepData
from cliptex.probes.detection.config import DetectionProbe, Head
from cliptex.probes.detection.predict import MASK_THRESHOLD, detect_all
from cliptex.probes.detection.train import Candidate, MapReader, train_heads
from cliptex.probes.features import proven_frozen
from cliptex.results import Result


@dataclass(frozen=True)
class DetectionOutcome:
    """Rows (a set per seed), the chosen rate's heads in the order of the seeds, and the held-out
    score of every rate (empty where there was only one)."""

    results: list[Result]
    heads: list[Head]
    rate: float
    scores: dict[float, float]

    def value(self, metric: str, seed: int = 0) -> float:
        """The value of the row with `metric` of `seed`."""
        return next(r.value for r in self.results if (r.metric, r.seed) == (metric, seed))


def run_detection_probe(
    encoder: FrozenEncoder,
    train: DetectionDataset,
    test: DetectionDataset,
    config: DetectionProbe,
    *,
    model: str,
    checkpoint: str = "",
    leak: bool = False,
    folder: Path | None = None,
) -> DetectionOutcome:
    """Train heads on `train`, choose the rate on a part of it, score them on `test` once.

    Args:
        encoder: read once per batch for all heads; proven unchanged.
        model, checkpoint, leak: see `Result`.
        folder: where the training's state is kept, so that a killed run goes on; None keeps none.

    Raises:
        ValueError: for sets of different classes, too few pictures, or a foreign state.
        FrozenEncoderChanged: where the encoder moved.
    """
    if train.classes != test.classes:
        raise ValueError(f"{train.name} and {test.name} differ in their classes")
    fit, held = _split(train, config)
    with proven_frozen(encoder) as fingerprint:
        reader = MapReader(encoder)
        candidates = train_heads(
            reader,
            StepData(train, fit, config),
            config,
            classes=len(train.classes) + 1,
            identity=_identity(train, fit, config, fingerprint),
            folder=folder,
        )
        rate, scores = _chosen(reader, candidates, train, held, config)
        heads = [c for c in candidates if c.rate == rate]
        tested = _scores(reader, heads, test, range(len(test)), config, "test")
    protocol = {
        **config.protocol(),
        "resolution": config.size,
        **_selection(rate, scores, held, config),
        "classes": len(test.classes),
        "train_images": len(fit),
        "mask_threshold": MASK_THRESHOLD if config.masks else None,
        "ap": PROTOCOL,
    }
    rows = [
        Result(
            model=model,
            checkpoint=checkpoint,
            task="detection",
            dataset=test.name,
            probe=config.name,
            metric=metric,
            value=value,
            better="higher",
            n=len(test),
            seed=candidate.seed,
            protocol={**protocol, "diverged_at_step": candidate.diverged},
            leak=leak,
        )
        for candidate, metrics in zip(heads, tested, strict=True)
        for metric, value in metrics.items()
        if not math.isnan(value)  # no object of that size
    ]
    return DetectionOutcome(rows, [c.head for c in heads], rate, scores)


def _split(train: DetectionDataset, config: DetectionProbe) -> tuple[list[int], list[int]]:
    """Rows to learn from, and rows to choose among several rates on."""
    rows = train.with_objects()
    if len(config.grid) == 1:
        return rows, []
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} pictures of {train.name} cannot be split for selection")
    count = min(len(rows) - 1, max(1, round(config.holdout * len(rows))))
    order = np.random.default_rng([config.data_seed, 3]).permutation(rows).tolist()
    return sorted(order[count:]), sorted(order[:count])


def _identity(
    train: DetectionDataset, rows: Sequence[int], config: DetectionProbe, fingerprint: str
) -> dict[str, object]:
    ids = json.dumps([train.image_ids[i] for i in rows]).encode()
    return {
        **config.protocol(),
        "rates": list(config.grid),
        "seeds": list(config.seeds),
        "encoder": fingerprint,
        "dataset": train.name,
        "classes": list(train.classes),
        "pictures": hashlib.sha256(ids).hexdigest(),
    }


def _scores(
    reader: MapReader,
    candidates: Sequence[Candidate],
    dataset: DetectionDataset,
    rows: Sequence[int],
    config: DetectionProbe,
    label: str,
) -> list[dict[str, float]]:
    """Metrics of every candidate; one whose training diverged is scored as finding nothing."""
    sound = [candidate for candidate in candidates if candidate.diverged is None]
    heads = [candidate.head for candidate in sound]
    all_found = detect_all(reader, heads, dataset, rows, config, label=f"{config.name} {label}")
    truth = dataset.ground_truth(rows)
    overlaps: tuple[Overlap, ...] = ("bbox", "segm") if config.masks else ("bbox",)
    scored = iter([coco_ap(truth, results, overlaps) for results in all_found])
    nothing = coco_ap(truth, [], overlaps)
    return [nothing if candidate.diverged is not None else next(scored) for candidate in candidates]


def _chosen(
    reader: MapReader,
    candidates: Sequence[Candidate],
    train: DetectionDataset,
    held: Sequence[int],
    config: DetectionProbe,
) -> tuple[float, dict[float, float]]:
    """The rate of the best mean over seeds; a rate with a diverged head scores 0."""
    if not held:
        return config.grid[0], {}
    metric = _metric(config)
    found = _scores(reader, candidates, train, held, config, "selection")
    scores = {}
    for rate in config.grid:
        mine = [(c, s) for c, s in zip(candidates, found, strict=True) if c.rate == rate]
        finite = all(c.diverged is None for c, _ in mine)
        scores[rate] = float(np.mean([s[metric] for _, s in mine])) if finite else 0.0
    return max(scores, key=scores.__getitem__), scores


def _metric(config: DetectionProbe) -> str:
    return "ap_mask" if config.masks else "ap_box"


def _selection(
    rate: float, scores: dict[float, float], held: Sequence[int], config: DetectionProbe
) -> dict[str, object]:
    if not held:
        return {"lr": rate, "selection": "none: one rate"}
    grid = sorted(scores)
    return {
        "lr": rate,
        "lr_grid": grid,
        "lr_scores": [scores[r] for r in grid],
        "lr_at_grid_edge": rate in (grid[0], grid[-1]),
        "selection": f"{_metric(config)} on {len(held)} held-out images of train",
    }
