"""What a store's ledgers say failed, or lacks a ledger, to be labelled once more."""

from __future__ import annotations

from dataclasses import dataclass

from cliptex.files import AnyPath
from cliptex.labelling.jobs import failed_images, is_unfinished
from cliptex.labels.manifest import folder_name, read_manifest
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The images on which one expert failed: how many, in each shard that has any.

    `unfinished` are shards whose labels lack a ledger, as a run leaves them that was killed while
    it put new labels in the place of old ones. `due` is both, to be labelled anew.
    """

    expert: str
    folder: AnyPath
    shards: dict[str, int]
    unfinished: tuple[str, ...]
    images_due: int
    max_side: int
    codec: str

    @property
    def due(self) -> tuple[str, ...]:
        return (*self.shards, *self.unfinished)

    def __str__(self) -> str:
        if not self.due:
            return f"{self.expert}: it failed on no image; nothing to do"
        images = sum(self.shards.values())
        cut = f"; {len(self.unfinished)} more were left unfinished" if self.unfinished else ""
        return (
            f"{self.expert}: it failed on {images} images in {len(self.shards)} shards{cut}, which "
            f"are labelled anew ({self.images_due} images)"
        )


def find_failures(shards: ImageTextShards, labels: AnyPath, expert: str) -> Failures:
    """What the ledgers of `LABELS/EXPERT` say; images that cannot be decoded do not count.

    Raises FileNotFoundError where the expert has no labels there.
    """
    folder = labels / folder_name(expert)
    manifest = read_manifest(folder)
    counts = {shard: failed_images(folder, shard) for shard in shards.shards}
    failed = {shard: count for shard, count in counts.items() if count}
    unfinished = tuple(shard for shard in shards.shards if is_unfinished(folder, shard))
    return Failures(
        expert=expert,
        folder=folder,
        shards=failed,
        unfinished=unfinished,
        images_due=sum(len(shards.index(shard)) for shard in (*failed, *unfinished)),
        max_side=manifest.max_side,
        codec=manifest.codec,
    )
