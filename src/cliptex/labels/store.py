"""The label store in one import: reading, writing a shard, and writing a store from arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from cliptex.labels.codecs import encode, fit
from cliptex.labels.commit import remove_abandoned
from cliptex.labels.kinds import Kind
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest, claim_store, read_manifest
from cliptex.labels.reader import LabelReader, StoredLabel
from cliptex.labels.writer import ShardLabelWriter, is_committed
from cliptex.shards.dataset import ImageTextShards

__all__ = [
    "LabelReader",
    "Manifest",
    "ShardLabelWriter",
    "StoredLabel",
    "add_label",
    "claim_store",
    "is_committed",
    "labels_from_arrays",
    "read_manifest",
]


def add_label(
    writer: ShardLabelWriter, kind: Kind, key: str, array: np.ndarray, max_side: int
) -> Status:
    """Check, fit, encode and store one label, or record why it cannot be stored."""
    try:
        checked = kind.check(array)
    except ValueError as error:
        writer.fail(key, Status.BAD_LABEL, str(error))
        return Status.BAD_LABEL
    if not kind.valid(checked).any():
        writer.fail(key, Status.NO_VALID_PIXEL)
        return Status.NO_VALID_PIXEL
    writer.add(key, encode(kind, fit(kind, checked, max_side)))
    return Status.OK


def labels_from_arrays(
    labels: Path,
    manifest: Manifest,
    shards: ImageTextShards,
    arrays: Callable[[str], Iterable[tuple[str, np.ndarray | None]]],
) -> Path:
    """Write a store from arrays that exist already, such as a renderer's truth.

    `arrays(shard)` yields (key, label of the whole image, or None where there is none); keys may
    come in any order and need not be complete. Resumes like any labelling: shards with a ledger
    are left alone. Returns the expert's folder, `LABELS/EXPERT`.
    """
    folder = claim_store(labels, manifest)
    remove_abandoned(folder)
    kind = manifest.label_kind
    for shard in shards.shards:
        if is_committed(folder, shard):
            continue
        found = dict(arrays(shard))
        with ShardLabelWriter(folder, shard) as writer:
            for key in shards.keys(shard):
                array = found.pop(key, None)
                if array is None:
                    writer.fail(key, Status.NO_LABEL)
                else:
                    add_label(writer, kind, key, array, manifest.max_side)
            if found:
                raise ValueError(f"labels for keys that {shard} does not hold: {sorted(found)[:5]}")
            writer.commit()
    return folder
