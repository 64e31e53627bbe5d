"""What a store's ledgers say failed, to be labelled once more."""

from __future__ import annotations

from dataclasses import dataclass

from cliptex.files import AnyPath
from cliptex.labelling.jobs import failed_images
from cliptex.labels.manifest import folder_name, read_manifest
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The images on which one expert failed: how many, in each shard that has any."""

    expert: str
    shards: dict[str, int]
    images_in_shards: int
    max_side: int

    def __str__(self) -> str:
        if not self.shards:
            return f"{self.expert}: it failed on no image; nothing to do"
        images = sum(self.shards.values())
        return (
            f"{self.expert}: it failed on {images} images in {len(self.shards)} shards, which are "
            f"labelled anew ({self.images_in_shards} images)"
        )


def find_failures(shards: ImageTextShards, labels: AnyPath, expert: str) -> Failures:
    """What the ledgers of `LABELS/EXPERT` say; images that cannot be decoded do not count.

    Raises FileNotFoundError where the expert has no labels there.
    """
    folder = labels / folder_name(expert)
    manifest = read_manifest(folder)
    counts = {shard: failed_images(folder, shard) for shard in shards.shards}
    failed = {shard: count for shard, count in counts.items() if count}
    return Failures(
        expert=expert,
        shards=failed,
        images_in_shards=sum(len(shards.index(shard)) for shard in failed),
        max_side=manifest.max_side,
    )
