"""What labels hold (classes, ranges, invalid pixels), and what each codec of a kind costs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cliptex.files import AnyPath
from cliptex.labels.kinds import Difference, Kind
from cliptex.labels.ledger import Ledger, Status
from cliptex.labels.reader import LabelReader

DECODINGS = 3  # of each label; the fastest counts


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
    summary = reader.kind.summary()
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
        summary.add(stored.array, stored.instances)
    return LabelStats(
        expert=reader.manifest.expert,
        kind=reader.kind.name,
        labels=len(samples),
        bytes_per_label=sizes / len(samples),
        invalid=invalid / pixels,
        confidence=float(np.mean(confidences)) if confidences else float("nan"),
        confidence_meaning=reader.manifest.confidence,
        **summary.result(),
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


@dataclass(frozen=True, kw_only=True)
class CodecCost:
    """One codec, measured on labels at their stored size, on one thread.

    bytes_per_label counts the PNG and its JSON; `error` is decode(encode(x)) against x: the mean
    over labels, and the worst pixel of all. Times are means over labels.
    """

    codec: str
    bytes_per_label: float
    error: Difference
    encode_ms: float
    decode_ms: float


def choose_codecs(kinds: Sequence[Kind], names: Sequence[str]) -> list[str | None]:
    """For each kind the one of `names` that stores it, None where its default does.

    Raises ValueError for a name that stores none of the kinds, or two that store one.
    """
    fitting = [[name for name in names if name in kind.codecs] for kind in kinds]
    for kind, found in zip(kinds, fitting, strict=True):
        if len(found) > 1:
            raise ValueError(f"codecs {' and '.join(found)} both store {kind.name}: give one")
    useless = [name for name in names if not any(name in found for found in fitting)]
    if useless:
        known = {kind.name: ", ".join(kind.codecs) for kind in kinds}
        listed = "; ".join(f"{kind} by {codecs}" for kind, codecs in known.items())
        raise ValueError(f"codec {useless[0]!r} stores no label of these experts: {listed}")
    return [found[0] if found else None for found in fitting]


def measure_codecs(kind: Kind, labels: Sequence[np.ndarray]) -> tuple[CodecCost, ...]:
    """What every codec of `kind` costs on `labels`, at least one, in the kind's form."""
    return tuple(_measure(kind, name, labels) for name in kind.codecs)


def _measure(kind: Kind, name: str, labels: Sequence[np.ndarray]) -> CodecCost:
    sizes: list[int] = []
    errors: list[Difference] = []
    encoding: list[float] = []
    decoding: list[float] = []
    for label in labels:
        start = time.perf_counter()
        encoded = kind.encode(label, name)
        encoding.append(time.perf_counter() - start)
        times: list[float] = []
        for _ in range(DECODINGS):
            start = time.perf_counter()
            back = kind.decode(encoded.png, encoded.meta, name)
            times.append(time.perf_counter() - start)
        decoding.append(min(times))
        meta = b"" if encoded.meta is None else json.dumps(encoded.meta).encode()
        sizes.append(len(encoded.png) + len(meta))
        errors.append(kind.difference(back, label))
    return CodecCost(
        codec=name,
        bytes_per_label=float(np.mean(sizes)),
        error=Difference(
            validity=min(error.validity for error in errors),
            mean=float(np.mean([error.mean for error in errors])),
            worst=max(error.worst for error in errors),
        ),
        encode_ms=1e3 * float(np.mean(encoding)),
        decode_ms=1e3 * float(np.mean(decoding)),
    )
