"""What is trained on and scored: splits that share pictures are refused, and COCO joins VOC."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptex.datasets.catalogue import LAYOUTS

if TYPE_CHECKING:
    from cliptex.probes.protocol import Protocol

HELD_OUT = "leave out --val-split: the rate is then chosen on a held-out part of train"


def require_root(layout: str, root: Path) -> None:
    """FileNotFoundError where there is nothing at `root`, unless it may be a hub's id."""
    if not LAYOUTS[layout].hub and not root.exists():
        raise FileNotFoundError(f"--root {root} does not exist: where does the {layout} set lie?")


def refuse_equal(train: str, val: str | None, test: str) -> None:
    """ValueError where two of the splits have one name."""
    if train == test:
        raise ValueError(
            f"--train-split and --test-split are both {test!r}: name another --test-split, since "
            "what was learnt from cannot be scored"
        )
    if val in (train, test):
        other = "--test-split" if val == test else "--train-split"
        raise ValueError(f"--val-split and {other} are both {val!r}: {HELD_OUT}")


def refuse_shared(sets: dict[str, Any], test: Any) -> None:
    """ValueError where a set, named by its option, holds pictures of `test`.

    Only readers with `pictures` (see `datasets.protocol`) can tell; no picture is read.
    """
    held = set(getattr(test, "pictures", ()))
    for option, one in sets.items():
        shared = [picture for picture in getattr(one, "pictures", ()) if picture in held]
        if shared:
            remedy = HELD_OUT if option == "--val-split" else "name a split without them"
            raise ValueError(
                f"{option} holds {len(shared)} of the {len(test)} pictures of --test-split, such "
                f"as {shared[0]}: {remedy}"
            )


def refuse_bare(train: Any) -> None:
    """ValueError names a class folder of `train` without a picture to learn from."""
    empty = getattr(train, "empty", ())
    if empty:
        raise ValueError(
            f"--train-split: {empty[0]} holds no picture ({len(empty)} such class folders): "
            "complete it, or take the class out of all splits"
        )


def refuse_crops(test: Any, protocols: Iterable[Protocol]) -> None:
    """ValueError where the crop of a protocol does not lie in the depths of the first of `test`."""
    from cliptex.probes.scores import crop_mask

    crops = [protocol.crop for protocol in protocols if protocol.crop is not None]
    for crop in crops:
        crop_mask(test[0].target, crop)


def with_coco(voc: Any, root: Path) -> Any:
    """VOC's training set, then COCO's of train; ValueError for other sets and classes."""
    from cliptex.datasets.coco_voc import CocoAsVoc, JoinedDense

    if voc.name != "voc":
        raise ValueError("--extra-coco: it adds to --dataset voc; leave it out")
    coco = CocoAsVoc(root, "train")
    if voc.kind != coco.kind:
        raise ValueError(
            f"--extra-coco: --root has {len(voc.kind.classes)} classes of its own (labels.txt), "
            f"COCO can be given VOC's {len(coco.kind.classes)} alone; leave it out"
        )
    return JoinedDense([voc, coco])
