"""An expert, or a store of its labels, against the ground truth of a benchmark.

Predictions are enlarged to the ground truth's size by their kind's rule and scored there; what a
number depends on stands in its row's protocol, and a benchmark that the expert learnt from is
marked as a leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cliptex.console import track
from cliptex.datasets.catalogue import is_leak
from cliptex.datasets.protocol import DenseDataset
from cliptex.experts.protocol import UNKNOWN, Expert, ExpertSpec
from cliptex.labels.kinds import Kind
from cliptex.labels.manifest import Manifest
from cliptex.labels.reader import LabelReader
from cliptex.results import Result

Pair = tuple[np.ndarray | None, np.ndarray]  # prediction or None, ground truth


class KeyedDataset(DenseDataset, Protocol):
    """A benchmark whose pictures have names; `keys[i]` is that of picture i."""

    @property
    def keys(self) -> Sequence[str]: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who made the predictions that are scored, as a results row names it."""

    name: str
    kind: Kind
    checkpoint: str = ""
    learnt_from: tuple[str, ...] = ()
    how: str = "predicted from the image"

    @classmethod
    def of_expert(cls, spec: ExpertSpec) -> Source:
        return cls(
            name=spec.name,
            kind=spec.kind,
            checkpoint=spec.weights_sha256,
            learnt_from=spec.learnt_from,
        )

    @classmethod
    def of_store(cls, manifest: Manifest) -> Source:
        return cls(
            name=manifest.expert,
            kind=manifest.label_kind,
            checkpoint=manifest.weights_sha256,
            learnt_from=manifest.learnt_from,
            how=f"labels as stored, long side at most {manifest.max_side}, {manifest.codec}",
        )


def score_expert_on(dataset: DenseDataset, expert: Expert, *, batch_size: int = 8) -> list[Result]:
    """Rows of `expert` on every picture of `dataset`.

    Raises ValueError where the expert's kind of label cannot be compared with the ground truth.
    """
    source = Source.of_expert(expert.spec)
    return score_predictions(dataset, source, _predicted(dataset, expert, batch_size))


def score_store_on(dataset: KeyedDataset, reader: LabelReader) -> list[Result]:
    """Rows of labels that are stored under the pictures' keys.

    Raises ValueError where a key lies in two shards, or no picture has a label. Pictures without
    one are left out and counted in the protocol.
    """
    keys = dataset.keys
    places = _places(reader, set(keys))
    if not places:
        raise ValueError(
            f"{reader.folder} has no label for any picture of {dataset.name}, such as {keys[0]!r}: "
            "the shards' keys must be the names of its pictures"
        )

    def stored() -> Iterator[Pair]:
        for number, key in enumerate(keys):
            label = reader.read(places[key], key) if key in places else None
            yield (None if label is None else label.array), dataset[number].target

    return score_predictions(dataset, Source.of_store(reader.manifest), stored())


def score_predictions(dataset: DenseDataset, source: Source, pairs: Iterable[Pair]) -> list[Result]:
    """Rows of (prediction of any size or None, ground truth) for every picture of `dataset`."""
    scorer = source.kind.label_scorer(dataset.kind)
    title = f"scoring {source.name} on {dataset.name}"
    scored = missing = 0
    for prediction, truth in track(pairs, label=title, total=len(dataset)):
        if prediction is None:
            missing += 1
            continue
        checked = source.kind.check(prediction)
        size = (truth.shape[0], truth.shape[1])
        scorer.add_label(source.kind.resize(checked, size), truth)
        scored += 1
    protocol: dict[str, object] = {
        "predictions": source.how,
        "resolution": "ground truth's",
        "images_without_prediction": missing,
        "learnt_from": list(source.learnt_from),
        **scorer.protocol(),
    }
    return [
        Result(
            model=source.name,
            checkpoint=source.checkpoint,
            task=source.kind.task,
            dataset=dataset.name,
            metric=metric,
            value=score.value,
            better=score.better,
            n=scored,
            protocol=protocol,
            leak=is_leak(dataset.name, dataset.name, source.learnt_from),
        )
        for metric, score in scorer.metrics().items()
    ]


def describe_scores(rows: Sequence[Result]) -> str:
    """The rows as text, a metric a line, then what they depend on."""
    first = rows[0]
    mark = ""
    if first.leak:
        mark = "; LEAK: the expert learnt from this benchmark"
    elif UNKNOWN in str(first.protocol.get("learnt_from")):
        mark = "; it is UNKNOWN whether the expert learnt from this benchmark"
    lines = [f"{first.model} on {first.dataset}, {first.n} images{mark}"]
    if missing := first.protocol.get("images_without_prediction"):
        lines.append(f"  {missing} pictures without a label are left out")
    lines += [f"  {row.metric}: {row.value:.4g} ({row.better} is better)" for row in rows]
    for name in ("unmatched_expert_classes", "unmatched_dataset_classes"):
        if first.protocol.get(name):
            lines.append(f"  {name.replace('_', ' ')}: {first.protocol[name]}")
    return "\n".join(lines)


def _predicted(dataset: DenseDataset, expert: Expert, batch_size: int) -> Iterator[Pair]:
    for start in range(0, len(dataset), batch_size):
        items = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        found = expert.predict([item.image for item in items])
        for item, prediction in zip(items, found, strict=True):
            yield prediction.label, item.target


def _places(reader: LabelReader, keys: set[str]) -> dict[str, str]:
    """The shard of each wanted key that has a label: one pass over the store's keys."""
    places: dict[str, str] = {}
    for shard in reader.shards:
        ledger = reader.ledger(shard)
        assert ledger is not None
        for name in ledger.ok_keys().tolist():
            key = name.decode("utf-8", "surrogateescape")
            if key not in keys:
                continue
            if key in places:
                raise ValueError(f"key {key!r} lies in {places[key]} and in {shard}")
            places[key] = shard
    return places
