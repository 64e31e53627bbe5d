"""Placebo labels: a real store whose labels have changed places among the images.

A control for training: the same labels, the same codec, the same coverage, and no relation to the
image they are joined to.
"""

from __future__ import annotations

import numpy as np

from cliptex.files import AnyPath, remove_abandoned
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, is_committed
from cliptex.shards.dataset import ImageTextShards

Sample = tuple[str, str]  # shard, key


def write_placebo(
    reader: LabelReader,
    shards: ImageTextShards,
    labels: AnyPath,
    *,
    seed: int = 0,
    name: str | None = None,
) -> AnyPath:
    """Write the store `labels/NAME` (default `EXPERT-placebo`) and return its folder.

    Every image that has a label in `reader` gets another image's label, by one cycle through all
    of them, so no image keeps its own; images without a label stay without. Labels are copied as
    encoded bytes, confidence and counts with them. Raises ValueError where fewer than two labels
    exist.
    """
    donors = _cycle(_labelled(reader, shards), seed)
    original = reader.manifest
    manifest = original.model_copy(
        update={
            "expert": name or f"{original.expert}-placebo",
            "dataset_id": shards.dataset_id,
            "source": f"labels of {original.expert}, given to other images with seed {seed}",
        }
    )
    folder = claim_store(labels, manifest)
    remove_abandoned(folder)
    for shard in shards.shards:
        if is_committed(folder, shard):
            continue
        with ShardLabelWriter(folder, shard, image_size=shards.index(shard).size) as writer:
            for key in shards.keys(shard):
                donor = donors.get((shard, key))
                label = None if donor is None else reader.read_encoded(*donor, confidence=True)
                if label is None:
                    writer.fail(key, Status.NO_LABEL)
                else:
                    writer.add(key, label)
            writer.commit()
    return folder


def _labelled(reader: LabelReader, shards: ImageTextShards) -> list[Sample]:
    found: list[Sample] = []
    for shard in shards.shards:
        ledger = reader.ledger(shard)
        if ledger is not None:
            found += [(shard, key) for key in shards.keys(shard) if ledger.has_label(key)]
    return found


def _cycle(samples: list[Sample], seed: int) -> dict[Sample, Sample]:
    """Each sample's donor: its successor in a random cycle through all (Sattolo's shuffle)."""
    if len(samples) < 2:
        raise ValueError(f"a placebo needs at least two labels, found {len(samples)}")
    order = np.random.default_rng(seed).permutation(len(samples))
    after = np.roll(order, -1)
    return {samples[i]: samples[j] for i, j in zip(order, after, strict=True)}
