"""What the commands that make or read labels have in common: the data, and what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cliptex.files import AnyPath

if TYPE_CHECKING:
    from cliptex.labelling.stores import Losses
    from cliptex.shards.dataset import ImageTextShards


def whole_shards(data: AnyPath) -> ImageTextShards:
    """The shards without the damaged ones, of which a line is printed."""
    from cliptex.shards.dataset import ImageTextShards

    shards = ImageTextShards(data, on_damaged="leave out")
    if shards.damaged:
        named = "; ".join(f"{shard} ({why})" for shard, why in shards.damaged.items())
        print(f"{len(shards.damaged)} damaged shards are left out: {named}")
    return shards


def check_share(max_failures: float) -> None:
    """ValueError where it is no share, before any work."""
    from cliptex.console import check_failures

    check_failures(0, 0, allowed=max_failures, what="", remedy="")


def tell_losses(folders: Sequence[AnyPath], shards: Sequence[str]) -> list[Losses]:
    """Print what the stores lack of the images in `shards`, whichever run labelled them."""
    from cliptex.labelling.stores import find_losses

    found = [find_losses(folder, shards) for folder in folders]
    for losses in found:
        if losses.lost:
            print(losses)
    return found
