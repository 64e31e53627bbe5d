"""A store whose data set has changed since: shards repaired, added, or damaged."""

from __future__ import annotations

import json

from cliptex.files import AnyPath, exists, remove_durably, write_atomic
from cliptex.labels.ledger import ledger_path, read_ledger
from cliptex.labels.manifest import FILE_NAME, read_manifest
from cliptex.labels.writer import committed_shards, label_tar
from cliptex.shards.dataset import ImageTextShards

DAMAGED = "damaged.json"  # beside the manifest


def follow_growth(folder: AnyPath, shards: ImageTextShards) -> bool:
    """Let the labels in `LABELS/EXPERT` be those of `shards` as they are now; whether they are.

    Where `belongs` says so, nothing but the data set's name is rewritten in the manifest. Any other
    store is left for `claim_store` to accept or refuse.
    """
    if not exists(folder / FILE_NAME):
        return False
    manifest = read_manifest(folder)
    if manifest.dataset_id == shards.dataset_id or not belongs(folder, shards):
        return False
    grown = manifest.model_copy(update={"dataset_id": shards.dataset_id})
    text = json.dumps(grown.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    write_atomic(folder / FILE_NAME, text.encode())
    return True


def belongs(folder: AnyPath, shards: ImageTextShards) -> bool:
    """Whether the labels in `LABELS/EXPERT` are of `shards`, which may have changed since.

    They are where every labelled shard still has the size and the keys that it had when it was
    labelled (its ledger knows both), or is damaged now.
    """
    if read_manifest(folder).dataset_id == shards.dataset_id:
        return True
    labelled = committed_shards(folder) - shards.damaged.keys()
    return labelled <= set(shards.shards) and all(_is_of(folder, s, shards) for s in labelled)


def record_damage(folder: AnyPath, shards: ImageTextShards) -> None:
    """Keep in `LABELS/EXPERT` why shards are left out, so that the store says what it lacks."""
    left_out = _left_out(shards.damaged, shards)
    if recorded_damage(folder) == left_out:
        return
    if left_out:
        text = json.dumps(left_out, indent=2, sort_keys=True) + "\n"
        write_atomic(folder / DAMAGED, text.encode())
    else:
        remove_durably(folder / DAMAGED)


def recorded_damage(folder: AnyPath) -> dict[str, str]:
    """Path of each image shard that the last run left out, and why."""
    try:
        found = json.loads((folder / DAMAGED).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise ValueError(f"{folder / DAMAGED} is no JSON; remove it") from None
    return {str(shard): str(why) for shard, why in dict(found).items()}


def damage(folder: AnyPath, shards: ImageTextShards) -> dict[str, str]:
    """Path of each shard without usable images, and why: as it is now, or as the last run said."""
    return _left_out({**recorded_damage(folder), **shards.damaged}, shards)


def _left_out(damaged: dict[str, str], shards: ImageTextShards) -> dict[str, str]:
    return {shard: why for shard, why in sorted(damaged.items()) if shard not in shards.shards}


def _is_of(folder: AnyPath, shard: str, shards: ImageTextShards) -> bool:
    """Whether a shard's labels are of the image shard as it is."""
    ledger = read_ledger(ledger_path(label_tar(folder, shard)))
    index = shards.index(shard)
    return ledger.image_size == index.size and ledger.names() == shards.keys(shard)
