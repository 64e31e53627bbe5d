"""What a store's labels hold: classes by pixels, labels and objects, ranges, invalid pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cliptex.files import AnyPath
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.labels.ledger import Ledger, Status
from cliptex.labels.reader import LabelReader, StoredLabel

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
PIXELS_PER_LABEL = 1024  # a fixed grid of pixels per label enters the percentiles


@dataclass(frozen=True, kw_only=True)
class LabelStats:
    """Statistics over `labels` labels of one expert.

    `invalid` is the share of invalid pixels. `confidence` is the mean over the labels that have
    one, in [0, 1], NaN where none has. For class maps: each class's share of valid pixels
    (`pixel_share`) and of labels that hold it (`label_share`), and its number of detected objects
    (`instances`, empty where no label counts them). For scalar fields: `percentiles` of sampled
    values. For normals: `mean_vector` over sampled valid pixels.
    """

    expert: str
    kind: str
    labels: int
    bytes_per_label: float
    invalid: float
    confidence: float = float("nan")
    confidence_meaning: str = ""
    pixel_share: dict[str, float] = field(default_factory=dict)
    label_share: dict[str, float] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    percentiles: dict[int, float] = field(default_factory=dict)
    mean_vector: tuple[float, ...] = ()


def label_stats(folder: AnyPath, *, max_labels: int = 2000, seed: int = 0) -> LabelStats:
    """Statistics of `LABELS/EXPERT` over at most `max_labels` labels, drawn by the seed.

    Raises ValueError where the store has no label.
    """
    reader = LabelReader(folder)
    samples = draw_samples(reader, max_labels, seed)
    if not samples:
        raise ValueError(f"{folder} holds no labels yet")
    of_kind = (
        _ClassCount(reader.kind) if isinstance(reader.kind, ClassMap) else _Values(reader.kind)
    )
    sizes = invalid = pixels = 0
    confidences: list[float] = []
    for shard, key in samples:
        encoded = reader.read_encoded(shard, key, confidence=True)
        assert encoded is not None  # the ledger said ok
        stored = reader.decode(shard, key, encoded)
        sizes += len(encoded.png)
        valid = reader.kind.valid(stored.array)
        invalid += int((~valid).sum())
        pixels += valid.size
        if stored.confidence is not None:
            confidences.append(float(stored.confidence.mean()))
        of_kind.add(stored)
    return LabelStats(
        expert=reader.manifest.expert,
        kind=str(reader.manifest.kind["kind"]),
        labels=len(samples),
        bytes_per_label=sizes / len(samples),
        invalid=invalid / pixels,
        confidence=float(np.mean(confidences)) if confidences else float("nan"),
        confidence_meaning=reader.manifest.confidence,
        **of_kind.result(),
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
    if not np.isnan(stats.confidence):
        meaning = f" ({stats.confidence_meaning})" if stats.confidence_meaning else ""
        lines.append(f"  mean confidence: {stats.confidence:.3f}{meaning}")
    for name, share in sorted(stats.pixel_share.items(), key=lambda item: -item[1]):
        objects = stats.instances.get(name, 0)
        if share > 0 or objects:
            lines.append(
                f"  {name}: {100 * share:.2f} % of pixels, "
                f"in {100 * stats.label_share[name]:.1f} % of labels"
                + (f", {objects} objects" if objects else "")
            )
    for percent, value in stats.percentiles.items():
        lines.append(f"  {percent} %: {value:.4g}")
    if stats.mean_vector:
        lines.append("  mean vector: " + ", ".join(f"{x:.3f}" for x in stats.mean_vector))
    return "\n".join(lines)


class _ClassCount:
    """Adds up a class map's pixels, labels and objects by class."""

    def __init__(self, kind: ClassMap) -> None:
        self._kind = kind
        self._pixels = np.zeros(len(kind.classes), np.int64)
        self._present = np.zeros(len(kind.classes), np.int64)
        self._objects: Counter[int] = Counter()
        self._labels = 0
        self._counted = False

    def add(self, label: StoredLabel) -> None:
        count = len(self._kind.classes)
        found = np.bincount(label.array.ravel(), minlength=count)[:count]
        self._pixels += found
        self._present += found > 0
        self._labels += 1
        if label.instances is not None:
            self._counted = True
            self._objects.update(label.instances)

    def result(self) -> dict[str, Any]:
        pixels = self._pixels / max(1, self._pixels.sum())
        present = self._present / max(1, self._labels)
        objects = {name: self._objects[i] for i, name in enumerate(self._kind.classes)}
        return {
            "pixel_share": dict(zip(self._kind.classes, map(float, pixels), strict=True)),
            "label_share": dict(zip(self._kind.classes, map(float, present), strict=True)),
            "instances": objects if self._counted else {},
        }


class _Values:
    """Samples the valid values of scalar fields or normals."""

    def __init__(self, kind: ScalarField | UnitVector) -> None:
        self._kind = kind
        self._found: list[np.ndarray] = []

    def add(self, label: StoredLabel) -> None:
        thin = _thin(label.array)
        self._found.append(thin[self._kind.valid(thin)])

    def result(self) -> dict[str, Any]:
        values = np.concatenate(self._found).astype(np.float64)
        if not len(values):
            return {}
        if isinstance(self._kind, UnitVector):
            return {"mean_vector": tuple(float(x) for x in values.mean(axis=0))}
        found = np.percentile(values, PERCENTILES)
        return {"percentiles": dict(zip(PERCENTILES, map(float, found), strict=True))}


def _thin(array: np.ndarray) -> np.ndarray:
    """Every n-th row and column, so that about PIXELS_PER_LABEL remain."""
    step = max(1, int(np.sqrt(array.shape[0] * array.shape[1] / PIXELS_PER_LABEL)))
    return array[::step, ::step]
