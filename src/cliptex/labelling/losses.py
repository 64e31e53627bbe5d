"""How many images of a data set have no label although their shards are labelled, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cliptex.console import check_failures
from cliptex.files import AnyPath
from cliptex.labels.ledger import Status
from cliptex.labels.reader import LabelReader

REMEDY = (
    "`cliptex label status` lists them; put the images right and label anew, or allow more with "
    "--max-failures"
)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Of one expert's labelled shards: their images, and those without a label by status.

    `example` names one of these with its message: `SHARD:KEY (MESSAGE)`.
    """

    folder: AnyPath
    expert: str
    images: int
    reasons: Counter[Status]
    example: str

    @property
    def lost(self) -> int:
        """Images without a label."""
        return self.reasons.total()

    def __str__(self) -> str:
        if not self.lost:
            return f"{self.expert}: all {self.images} images have a label"
        reasons = ", ".join(f"{count} {status.label}" for status, count in self.reasons.items())
        return (
            f"{self.expert}: {self.lost} of {self.images} images have no label: {reasons}; "
            f"such as {self.example}"
        )


def find_losses(folder: AnyPath, shards: Iterable[str]) -> Losses:
    """What `LABELS/EXPERT` holds now of those of `shards` that are labelled, whoever did it."""
    reader = LabelReader(folder)
    reasons: Counter[Status] = Counter()
    images, example = 0, ""
    for shard in shards:
        ledger = reader.ledger(shard)
        if ledger is None:
            continue
        images += len(ledger)
        counts = ledger.counts()
        del counts[Status.OK]
        reasons += counts
        if counts and not example:
            row = int((ledger.rows["status"] != Status.OK).argmax())
            key = bytes(ledger.keys[row]).decode("utf-8", "surrogateescape")
            why = ledger.message(row) or Status(int(ledger.rows["status"][row])).label
            example = f"{shard}:{key} ({why})"
    reader.close()
    return Losses(
        folder=reader.folder,
        expert=reader.manifest.expert,
        images=images,
        reasons=reasons,
        example=example,
    )


def refuse_losses(found: Sequence[Losses], allowed: float, *, whole: bool = True) -> None:
    """Raise ValueError where no image of a store has a label, `TooManyFailures` above `allowed`.

    `allowed` is a share of the images, 0 to 1. Unless `whole`, they are one job's part of the data
    set, of which none need have a label.
    """
    for losses in found:
        if whole and losses.images and losses.lost == losses.images:
            raise ValueError(f"{losses.folder} holds no label at all: {losses}; {REMEDY}")
    for losses in found:
        what = f"images that {losses.expert} was shown"
        check_failures(losses.lost, losses.images, allowed=allowed, what=what, remedy=REMEDY)
