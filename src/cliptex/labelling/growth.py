"""A store whose data set has changed since: shards repaired, added, or damaged."""

from __future__ import annotations

import json

from cliptex.files import AnyPath, exists
from cliptex.labels.commit import write_committed
from cliptex.labels.ledger import ledger_path, read_ledger
from cliptex.labels.manifest import FILE_NAME, read_manifest
from cliptex.labels.writer import committed_shards, label_tar
from cliptex.shards.dataset import ImageTextShards


def follow_growth(folder: AnyPath, shards: ImageTextShards) -> bool:
    """Let the labels in `LABELS/EXPERT` be those of `shards` as they are now; whether they are.

    They are where every labelled shard still has the size and the keys that it had when it was
    labelled (its ledger knows both), or is damaged now: then nothing but the data set's name is
    rewritten in the manifest. Any other store is left for `claim_store` to accept or refuse.
    """
    if not exists(folder / FILE_NAME):
        return False
    manifest = read_manifest(folder)
    if manifest.dataset_id == shards.dataset_id:
        return False
    labelled = committed_shards(folder) - shards.damaged.keys()
    if not labelled <= set(shards.shards):
        return False
    if not all(_is_of(folder, shard, shards) for shard in labelled):
        return False
    grown = manifest.model_copy(update={"dataset_id": shards.dataset_id})
    text = json.dumps(grown.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    write_committed(folder / FILE_NAME, text.encode())
    return True


def _is_of(folder: AnyPath, shard: str, shards: ImageTextShards) -> bool:
    """Whether a shard's labels are of the image shard as it is."""
    ledger = read_ledger(ledger_path(label_tar(folder, shard)))
    index = shards.index(shard)
    return ledger.image_size == index.size and ledger.names() == shards.keys(shard)
