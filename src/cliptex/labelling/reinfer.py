"""Would its expert say the same again? Stored labels against fresh predictions, in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from cliptex.console import track
from cliptex.experts.protocol import Expert, Prediction
from cliptex.labelling.expert_worker import Predictor
from cliptex.labels.kinds import Tolerance
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image


def disagreements(
    shards: ImageTextShards,
    reader: LabelReader,
    expert: Expert,
    drawn: list[tuple[str, str]],
    *,
    tolerance: Tolerance,
    batch_size: int,
) -> dict[str, list[str]]:
    """The drawn labels that the expert does not give again: key and reason, by shard.

    `drawn` are (shard, key) that have a label; `expert` is of the labels' kind.
    """
    bad: dict[str, list[str]] = defaultdict(list)
    fresh = _predicted(shards, Predictor(expert, batch_size), drawn)
    label = f"inferring with {expert.spec.name}"
    for shard, key, answer in track(fresh, label=label, total=len(drawn)):
        if isinstance(answer, str):
            error = answer
        else:
            error = _disagreement(reader, shard, key, answer, tolerance)
        if error:
            bad[shard].append(f"{key!r} ({error})")
    return bad


def _predicted(
    shards: ImageTextShards, predictor: Predictor, drawn: list[tuple[str, str]]
) -> Iterator[tuple[str, str, Prediction | str]]:
    """(shard, key, prediction, or why there is none) of the drawn images, a batch at a time."""
    size = predictor.limit
    for start in range(0, len(drawn), size):
        images: dict[tuple[str, str], np.ndarray] = {}
        for place in drawn[start : start + size]:
            try:
                images[place] = decode_image(shards.read_image(*place))
            except ImageError as reason:
                yield *place, f"labelled, but its image does not decode: {reason}"
        answers = predictor.predict(list(images.values()))
        for place, answer in zip(images, answers, strict=True):
            yield *place, f"now {answer}" if isinstance(answer, str) else answer


def _disagreement(
    reader: LabelReader, shard: str, key: str, answer: Prediction, tolerance: Tolerance
) -> str:
    """Why a fresh prediction's label is not the stored one, or an empty string."""
    kind, stored = reader.kind, reader.read(shard, key)
    assert stored is not None  # the ledger said ok
    try:
        fresh = kind.fit(kind.check(answer.label), reader.manifest.max_side)
    except ValueError as error:
        return f"now {error}"
    if fresh.shape != stored.array.shape:
        return f"stored as {stored.array.shape}, now {fresh.shape}"
    found = kind.difference(stored.array, fresh)
    return "" if kind.within(found, tolerance.of_stored()) else kind.describe(found)
