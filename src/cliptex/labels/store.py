"""The label store in one import: reading, writing a shard, and writing a store from arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from cliptex.files import AnyPath, remove_abandoned
from cliptex.labels.codecs import INSTANCES, Encoded, encode_confidence, instances_to_json
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest, claim_store, read_manifest
from cliptex.labels.reader import LabelReader, StoredLabel
from cliptex.labels.writer import Failure, ShardLabelWriter, is_committed
from cliptex.shards.dataset import ImageTextShards

__all__ = [
    "Failure",
    "LabelReader",
    "Manifest",
    "ShardLabelWriter",
    "StoredLabel",
    "add_label",
    "claim_store",
    "encode_label",
    "is_committed",
    "labels_from_arrays",
    "read_manifest",
]


def encode_label(
    manifest: Manifest,
    array: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    instances: Mapping[int, int] | None = None,
) -> Encoded | Failure:
    """Check, fit and encode one label as the manifest says, or say why that cannot be.

    array: the label in any form that its kind's `check` takes, of any resolution.
    confidence: (h, w) in [0, 1] over the whole image, of any resolution; None = not known.
    instances: number of objects per class id of a class map; None = not counted.
    """
    kind = manifest.label_kind
    try:
        checked = kind.check(array)
        map_png = None if confidence is None else encode_confidence(confidence)
        if instances is not None:
            kind.check_instances(instances)
    except ValueError as error:
        return Failure(Status.BAD_LABEL, str(error))
    fitted = kind.fit(checked, manifest.max_side)  # may lose single valid pixels
    if not kind.valid(fitted).any():
        return Failure(Status.NO_VALID_PIXEL)
    encoded = kind.encode(fitted, manifest.codec)
    meta = encoded.meta
    if instances is not None:
        meta = {**(meta or {}), INSTANCES: instances_to_json(instances)}
    return Encoded(encoded.png, meta, map_png)


def add_label(
    writer: ShardLabelWriter,
    manifest: Manifest,
    key: str,
    array: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    instances: Mapping[int, int] | None = None,
) -> Status:
    """`encode_label`, and write what comes of it."""
    return writer.write(
        key, encode_label(manifest, array, confidence=confidence, instances=instances)
    )


def labels_from_arrays(
    labels: AnyPath,
    manifest: Manifest,
    shards: ImageTextShards,
    arrays: Callable[[str], Iterable[tuple[str, np.ndarray | None]]],
) -> AnyPath:
    """Write a store from arrays that exist already, such as a renderer's truth.

    `arrays(shard)` yields (key, label of the whole image, or None where there is none), each key
    once. Keys may come in any order and need not be complete; where they are, in the shard's
    order, one label is held at a time. Resumes like any labelling: shards with a ledger are left
    alone. Returns the expert's folder, `LABELS/EXPERT`.
    """
    folder = claim_store(labels, manifest)
    remove_abandoned(folder)
    for shard in shards.shards:
        if is_committed(folder, shard):
            continue
        found = iter(arrays(shard))
        early: dict[str, np.ndarray | None] = {}  # came before their turn
        with ShardLabelWriter(folder, shard, image_size=shards.index(shard).size) as writer:
            for key in shards.keys(shard):
                while key not in early and (pair := next(found, None)) is not None:
                    early[pair[0]] = pair[1]
                array = early.pop(key, None)
                if array is None:
                    writer.fail(key, Status.NO_LABEL)
                else:
                    add_label(writer, manifest, key, array)
            strangers = [*early, *(key for key, _ in found)]
            if strangers:
                raise ValueError(
                    f"labels for keys that {shard} does not hold, or that came twice: "
                    f"{sorted(strangers)[:5]}"
                )
            writer.commit()
    return folder
