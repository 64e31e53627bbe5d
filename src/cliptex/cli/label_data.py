"""Image-text shards as the commands that read labels open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cliptex.files import AnyPath

if TYPE_CHECKING:
    from cliptex.shards.dataset import ImageTextShards


def whole_shards(data: AnyPath) -> ImageTextShards:
    """The shards without the damaged ones, of which a line is printed."""
    from cliptex.shards.dataset import ImageTextShards

    shards = ImageTextShards(data, on_damaged="leave out")
    if shards.damaged:
        named = "; ".join(f"{shard} ({why})" for shard, why in shards.damaged.items())
        print(f"{len(shards.damaged)} damaged shards are left out: {named}")
    return shards
