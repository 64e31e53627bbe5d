"""What a store's labels hold: class frequencies, value ranges, share of invalid pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliptex.labels.kinds import ClassMap, UnitVector
from cliptex.labels.ledger import Ledger, Status
from cliptex.labels.reader import LabelReader

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
PIXELS_PER_LABEL = 1024  # a fixed grid of pixels per label enters the percentiles


@dataclass(frozen=True, kw_only=True)
class LabelStats:
    """Statistics over `labels` labels of one expert.

    `invalid` is the share of invalid pixels. For class maps: each class's share of valid pixels
    (`pixel_share`) and of labels that hold it (`label_share`). For scalar fields: `percentiles` of
    sampled values. For normals: `mean_vector` over valid pixels.
    """

    expert: str
    kind: str
    labels: int
    bytes_per_label: float
    invalid: float
    pixel_share: dict[str, float] = field(default_factory=dict)
    label_share: dict[str, float] = field(default_factory=dict)
    percentiles: dict[int, float] = field(default_factory=dict)
    mean_vector: tuple[float, ...] = ()


def label_stats(folder: Path, *, max_labels: int = 2000, seed: int = 0) -> LabelStats:
    """Statistics of `LABELS/EXPERT` over at most `max_labels` labels, drawn by the seed.

    Raises ValueError where the store has no label.
    """
    reader = LabelReader(folder)
    samples = draw_samples(reader, max_labels, seed)
    if not samples:
        raise ValueError(f"{folder} holds no labels yet")
    arrays: list[np.ndarray] = []
    sizes = invalid = pixels = 0
    for shard, key in samples:
        encoded = reader.read_encoded(shard, key)
        stored = reader.read(shard, key)
        assert encoded is not None and stored is not None  # the ledger said ok
        sizes += len(encoded.png)
        valid = reader.kind.valid(stored.array)
        invalid += int((~valid).sum())
        pixels += valid.size
        arrays.append(stored.array)
    return LabelStats(
        expert=reader.manifest.expert,
        kind=str(reader.manifest.kind["kind"]),
        labels=len(samples),
        bytes_per_label=sizes / len(samples),
        invalid=invalid / pixels,
        **_of_kind(reader, arrays),
    )


def draw_samples(reader: LabelReader, count: int, seed: int) -> list[tuple[str, str]]:
    """At most `count` labelled samples (shard, key), drawn by the seed, in the store's order."""
    ledgers = [(shard, reader.ledger(shard)) for shard in reader.shards]
    known: list[tuple[str, Ledger]] = [(s, ledger) for s, ledger in ledgers if ledger is not None]
    starts = np.cumsum([0, *(ledger.counts()[Status.OK] for _, ledger in known)])
    total = int(starts[-1])
    chosen = np.random.default_rng(seed).permutation(total)[:count]
    found: list[tuple[str, str]] = []
    for number in np.sort(chosen):
        place = int(np.searchsorted(starts, number, side="right")) - 1
        shard, ledger = known[place]
        key = bytes(ledger.ok_keys()[number - starts[place]])
        found.append((shard, key.decode("utf-8", "surrogateescape")))
    return found


def describe_stats(stats: LabelStats) -> str:
    """The statistics as text, classes by falling share."""
    lines = [
        f"{stats.expert}: {stats.kind}, {stats.labels} labels, "
        f"{stats.bytes_per_label / 1024:.1f} KiB each, {100 * stats.invalid:.2f} % invalid"
    ]
    for name, share in sorted(stats.pixel_share.items(), key=lambda item: -item[1]):
        if share > 0:
            lines.append(
                f"  {name}: {100 * share:.2f} % of pixels, "
                f"in {100 * stats.label_share[name]:.1f} % of labels"
            )
    for percent, value in stats.percentiles.items():
        lines.append(f"  {percent} %: {value:.4g}")
    if stats.mean_vector:
        lines.append("  mean vector: " + ", ".join(f"{x:.3f}" for x in stats.mean_vector))
    return "\n".join(lines)


def _of_kind(reader: LabelReader, arrays: list[np.ndarray]) -> dict:
    kind = reader.kind
    if isinstance(kind, ClassMap):
        return _class_shares(kind, arrays)
    valid = [_thin(array)[kind.valid(_thin(array))] for array in arrays]
    values = np.concatenate(valid).astype(np.float64)
    if isinstance(kind, UnitVector):
        return {"mean_vector": tuple(float(x) for x in values.mean(axis=0))}
    found = np.percentile(values, PERCENTILES)
    return {"percentiles": dict(zip(PERCENTILES, map(float, found), strict=True))}


def _class_shares(kind: ClassMap, arrays: list[np.ndarray]) -> dict:
    count = len(kind.classes)
    histograms = np.array(
        [np.bincount(a.ravel(), minlength=kind.ignore + 1)[:count] for a in arrays]
    )  # (labels, classes)
    pixels = histograms.sum(axis=0) / max(1, histograms.sum())
    present = (histograms > 0).mean(axis=0)
    return {
        "pixel_share": dict(zip(kind.classes, map(float, pixels), strict=True)),
        "label_share": dict(zip(kind.classes, map(float, present), strict=True)),
    }


def _thin(array: np.ndarray) -> np.ndarray:
    """Every n-th row and column, so that about PIXELS_PER_LABEL remain."""
    step = max(1, int(np.sqrt(array.shape[0] * array.shape[1] / PIXELS_PER_LABEL)))
    return array[::step, ::step]
