"""A store whose data set has changed since: shards repaired, added, or damaged."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cliptex.console import say
from cliptex.files import AnyPath, exists, parse_json, read_bytes, remove_durably, write_atomic
from cliptex.labels.ledger import ledger_path, read_ledger
from cliptex.labels.manifest import (
    FILE_NAME,
    Manifest,
    claim_store,
    read_manifest,
    refuse_mixing,
    write_manifest,
)
from cliptex.labels.writer import committed_shards, label_tar
from cliptex.shards.dataset import ImageTextShards

DAMAGED = "damaged.json"  # beside the manifest


def open_stores(
    labels: AnyPath, manifests: Sequence[Manifest], shards: ImageTextShards
) -> list[AnyPath]:
    """Create the stores `LABELS/EXPERT`, or check that those which are there may go on.

    Where a data set has changed and a store still `belongs` to it, nothing but the data set's name
    is rewritten in its manifest. Each store notes which shards are damaged. Returns the folders.
    Raises ValueError where one of the stores holds other labels; then all are as they were.
    """
    grown = [_grown(labels / manifest.folder_name, manifest, shards) for manifest in manifests]
    folders: list[AnyPath] = []
    for manifest, changed in zip(manifests, grown, strict=True):
        folder = labels / manifest.folder_name
        if changed is not None:
            write_manifest(folder, changed)
            say(
                f"{folder} now belongs to the data as they are: shards were added, repaired or lost"
            )
        claim_store(labels, manifest)
        record_damage(folder, shards)
        folders.append(folder)
    return folders


def _grown(folder: AnyPath, manifest: Manifest, shards: ImageTextShards) -> Manifest | None:
    """The manifest that an existing store needs to go on, where that is another one.

    ValueError where it may not go on.
    """
    if not exists(folder / FILE_NAME):
        return None
    old = read_manifest(folder)
    changed = old.dataset_id != shards.dataset_id and belongs(folder, shards)
    now = old.model_copy(update={"dataset_id": shards.dataset_id}) if changed else old
    refuse_mixing(folder, now, manifest)
    return now if changed else None


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
        found = parse_json(read_bytes(folder / DAMAGED))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{folder / DAMAGED} is no JSON object; remove it")
    return {str(shard): str(why) for shard, why in found.items()}


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
