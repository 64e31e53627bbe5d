"""A detection probe from a frozen encoder to rows of results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.protocol import DetectionDataset, refuse_empty
from cliptex.models.device import products
from cliptex.models.encoder import FrozenEncoder
from cliptex.per_image import save_per_image
from cliptex.probes.bank_state import StateFile, identity_of
from cliptex.probes.detection.ap import PROTOCOL, SUFFIX, coco_ap
from cliptex.probes.detection.batches import StepData
from cliptex.probes.detection.choice import Choice, choose_rate, split_rows
from cliptex.probes.detection.config import DetectionProbe, Head
from cliptex.probes.detection.matches import coco_matches
from cliptex.probes.detection.predict import MASK_THRESHOLD, Found, detect_all
from cliptex.probes.detection.train import Candidate, MapReader, train_heads
from cliptex.probes.features import proven_frozen
from cliptex.probes.items import check_sets, digest_of, place_of
from cliptex.results import Result

Key = tuple[str, int]
"""A metric and the seed of a head."""


@dataclass(frozen=True, kw_only=True)
class DetectionOutcome:
    """Rows (a set per seed), the heads of the chosen rate by seed, and how it was chosen.

    per_image: of `ap_box` and `ap_mask` by seed, what `coco_matches` gives.
    errors: a line for each seed that has no rows, because its loss stopped being finite.
    """

    results: list[Result]
    heads: dict[int, Head]
    choice: Choice
    per_image: dict[Key, dict[str, np.ndarray]]
    errors: list[str]

    def value(self, metric: str, seed: int = 0) -> float:
        """The value of the row with `metric` of `seed`."""
        return next(r.value for r in self.results if (r.metric, r.seed) == (metric, seed))

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row that has per-image values."""
        keyed = [(row, (row.metric, row.seed)) for row in self.results]
        return [
            save_per_image(folder, r, self.per_image[k]) for r, k in keyed if k in self.per_image
        ]


def run_detection_probe(
    encoder: FrozenEncoder,
    train: DetectionDataset,
    test: DetectionDataset,
    config: DetectionProbe,
    *,
    val: DetectionDataset | None = None,
    model: str,
    checkpoint: str = "",
    leak: bool = False,
    folder: Path | None = None,
) -> DetectionOutcome:
    """Train heads on `train`, choose the rate away from `test`, score them on `test` once.

    Args:
        encoder: read once per batch for all heads; proven unchanged.
        val: what several rates are compared on; None is a part of `train`.
        model, checkpoint, leak: see `Result`.
        folder: where the training's state is kept, so that a killed run goes on; None keeps none.

    Raises:
        ValueError: for sets without pictures or objects, different classes, too few pictures, a
            warm-up longer than the training, or a foreign state.
        FrozenEncoderChanged: where the encoder moved.
    """
    scored = [test] if val is None else [test, val]
    check_sets(train, *scored)
    for one in scored:
        refuse_empty(one.with_objects(), place_of(one), "no object to find")
    fit, held = split_rows(train, val, config)
    with proven_frozen(encoder) as sha, products(config.head_precision):
        reader = MapReader(encoder, config.precision)
        candidates = _trained(reader, train, fit, config, sha, folder)
        choice = choose_rate(reader, candidates, val or train, held, config)
        chosen = [c for c in candidates if c.key.lr == choice.rate]
        sound = [c for c in chosen if not c.diverged]
        heads = [c.module for c in sound]
        label = f"{model}: {config.name} on {test.name}, test"
        found = detect_all(reader, heads, test, range(len(test)), config, label=label)
    protocol = {
        **_protocol(config, train, fit),
        **choice.protocol(),
        **encoder.protocol(config.size),
        "encoder_sha256": sha,
    }
    naming = {"model": model, "checkpoint": checkpoint, "leak": leak, "protocol": protocol}
    rows, per_image = _scored(sound, found, test, config, naming)
    return DetectionOutcome(
        results=rows,
        heads={c.key.seed: c.module for c in sound},
        choice=choice,
        per_image=per_image,
        errors=[
            f"{model}: {config.name}, seed {c.key.seed}, on {test.name}: its loss was not finite "
            f"at a rate of {c.key.lr:g}; set a smaller learning rate (--lr)"
            for c in chosen
            if c.diverged
        ],
    )


def _trained(
    reader: MapReader,
    train: DetectionDataset,
    rows: Sequence[int],
    config: DetectionProbe,
    fingerprint: str,
    folder: Path | None,
) -> list[Candidate]:
    """Heads of every rate and seed, trained on `rows` of `train`, from `folder`'s state on."""
    state = None
    if folder is not None:
        identity = identity_of(_facts(train, rows, config, fingerprint))
        state = StateFile(folder / "state.safetensors", identity, config.save_every)
    classes = len(train.classes) + 1
    return train_heads(reader, StepData(train, rows, config), config, classes=classes, state=state)


def _facts(
    train: DetectionDataset, rows: Sequence[int], config: DetectionProbe, fingerprint: str
) -> dict[str, object]:
    """Whatever the trained heads depend on; of 16 pictures also what is in them."""

    def arrays(place: int) -> list[np.ndarray]:
        item = train.item(rows[place], masks=config.masks)
        found = (item.image, item.boxes, item.labels, item.masks)
        return [array for array in found if array is not None]

    ids = json.dumps([train.image_ids[i] for i in rows]).encode()
    return {
        **config.protocol(),
        "rates": list(config.grid),
        "seeds": list(config.seeds),
        "encoder": fingerprint,
        "dataset": train.name,
        "classes": list(train.classes),
        "pictures": hashlib.sha256(ids).hexdigest(),
        "content": digest_of(train.name, len(rows), arrays),
    }


def _protocol(
    config: DetectionProbe, train: DetectionDataset, rows: Sequence[int]
) -> dict[str, object]:
    return {
        **config.protocol(),
        "resolution": config.size,
        "classes": len(train.classes),
        "train_images": len(rows),
        "mask_threshold": MASK_THRESHOLD if config.masks else None,
        "ap": PROTOCOL,
    }


def _scored(
    candidates: Sequence[Candidate],
    found: Sequence[Found],
    test: DetectionDataset,
    config: DetectionProbe,
    naming: Mapping[str, Any],
) -> tuple[list[Result], dict[Key, dict[str, np.ndarray]]]:
    """The rows of every head, and the matches behind its two averages."""
    truth = test.ground_truth(range(len(test)))
    about = {"task": "detection", "dataset": test.name, "probe": config.name, "n": len(test)}
    rows: list[Result] = []
    per_image: dict[Key, dict[str, np.ndarray]] = {}
    for candidate, entries in zip(candidates, found, strict=True):
        seed = candidate.key.seed
        for overlap in config.overlaps:
            matches = coco_matches(truth, entries, overlap)
            per_image[f"ap_{SUFFIX[overlap]}", seed] = matches
        rows += [
            Result(metric=name, value=value, better="higher", seed=seed, **about, **naming)
            for name, value in coco_ap(truth, entries, config.overlaps).items()
            if not math.isnan(value)  # no object of that size
        ]
    return rows, per_image
