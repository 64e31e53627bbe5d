"""Label stores as runs find and leave them: opened, due, failed, lacking labels, and how far.

A data set may have changed since a store was begun: shards repaired, added, or damaged. A store
that still belongs to it is bound to the data set anew, see `open_stores`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cliptex.console import check_failures, say
from cliptex.files import (
    AnyPath,
    Claim,
    ask,
    exists,
    parse_json,
    read_bytes,
    remove_durably,
    write_atomic,
)
from cliptex.labels.ledger import Status, ledger_path, read_ledger
from cliptex.labels.manifest import (
    FILE_NAME,
    Manifest,
    claim_store,
    folder_name,
    read_manifest,
    refuse_mixing,
    write_manifest,
)
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import committed_shards, is_committed, label_tar
from cliptex.shards.dataset import ImageTextShards

DAMAGED = "damaged.json"  # beside the manifest
REMEDY = (
    "`cliptex label status` lists them; repair the images and label again, or allow more by "
    "`max_failures`"
)


def open_stores(
    labels: AnyPath, manifests: Sequence[Manifest], shards: ImageTextShards
) -> list[AnyPath]:
    """Create the stores `LABELS/EXPERT`, or check that those which are there may go on.

    Where a data set has changed and a store still `belongs` to it, nothing but the data set's name
    is rewritten in its manifest. Each store notes which shards are damaged. Returns the folders.
    Raises ValueError where one of the stores holds other labels; then all are as they were.
    """
    rebound = [_rebound(labels / manifest.folder_name, manifest, shards) for manifest in manifests]
    folders: list[AnyPath] = []
    for manifest, changed in zip(manifests, rebound, strict=True):
        folder = labels / manifest.folder_name
        if changed is not None:
            write_manifest(folder, changed)
            say(
                f"{folder} is bound to the data set as it is now: shards were added, repaired or "
                "lost"
            )
        claim_store(labels, manifest)
        record_damage(folder, shards)
        folders.append(folder)
    return folders


def _rebound(folder: AnyPath, manifest: Manifest, shards: ImageTextShards) -> Manifest | None:
    """The manifest that binds an existing store to the data set as it is; None where it does.

    ValueError where the store may not go on.
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
    """Record in `LABELS/EXPERT` which shards are left out and why, so that the store lists them."""
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


def claim_shard(folder: AnyPath, shard: str) -> Claim | None:
    """The right to label one shard in `LABELS/EXPERT`; None while another run has it.

    `remove_abandoned` clears the file of a run that died away. Remote stores have no locks: there,
    two runs may label the same shard, and the second finds it committed.
    """
    tar = label_tar(folder, shard)
    return Claim.take(tar.with_name(f".{tar.name}.lock.cliptex-tmp"))


def is_due(folder: AnyPath, shard: str, redo: bool) -> bool:
    """Whether a shard has no labels in `LABELS/EXPERT` yet.

    With `redo` it is due if the expert failed on some of its images, or if its tar has no ledger:
    a run that labelled it anew may have been killed between the two.
    """
    if not redo:
        return not is_committed(folder, shard)
    return is_unfinished(folder, shard) or failed_images(folder, shard) > 0


def is_unfinished(folder: AnyPath, shard: str) -> bool:
    """Whether a shard's tar of labels has no ledger, and so does not count."""
    return not is_committed(folder, shard) and exists(label_tar(folder, shard))


def failed_images(folder: AnyPath, shard: str) -> int:
    """Images of a shard on which the expert failed, as its ledger says; 0 without a ledger.

    That is: it raised an error, or its answer was no label of its kind.
    """
    if not is_committed(folder, shard):
        return 0
    counts = read_ledger(ledger_path(label_tar(folder, shard))).counts()
    return counts[Status.EXPERT_ERROR] + counts[Status.BAD_LABEL]


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
    """Failures in the ledgers of `LABELS/EXPERT`; images that cannot be decoded do not count.

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


@dataclass(frozen=True, kw_only=True)
class ExpertStatus:
    """One expert's progress on one data set.

    `failures` counts (status, reason); `damaged` are image shards that are left out, and why;
    `other_data` says that the labels were made for another data set than the one asked about.
    """

    expert: str
    folder: AnyPath
    shards_labelled: int
    shards: int
    images_labelled: int
    images: int
    statuses: dict[str, int]
    failures: dict[tuple[str, str], int]
    damaged: dict[str, str]
    other_data: bool

    @property
    def coverage(self) -> float:
        """Share of the images that have a label, in [0, 1]."""
        return self.images_labelled / self.images if self.images else 0.0


def expert_folders(labels: AnyPath) -> list[AnyPath]:
    """The experts' folders of a label store, sorted; `labels` may itself be one of them."""
    if exists(labels / FILE_NAME):
        return [labels]
    return sorted(path.parent for path in ask(labels, lambda: list(labels.glob(f"*/{FILE_NAME}"))))


def label_status(shards: ImageTextShards, labels: AnyPath) -> list[ExpertStatus]:
    """The progress of every expert in `labels`; FileNotFoundError where there is none."""
    folders = expert_folders(labels)
    if not folders:
        raise FileNotFoundError(f"{labels} holds no labels; `cliptex label run` makes them")
    return [_status(shards, LabelReader(folder)) for folder in folders]


def describe_status(rows: list[ExpertStatus]) -> str:
    """The progress as text: a line per expert, then its failures, most frequent first."""
    lines: list[str] = []
    for row in rows:
        lines.append(
            f"{row.expert}: {row.images_labelled} of {row.images} images "
            f"({100 * row.coverage:.1f} %), {row.shards_labelled} of {row.shards} shards"
        )
        if row.other_data:
            lines.append("  these labels were made for another data set")
        for (status, reason), count in row.failures.items():
            lines.append(f"  {count} x {status}" + (f": {reason}" if reason else ""))
        lines += [f"  damaged shard {shard}: {why}" for shard, why in row.damaged.items()]
    return "\n".join(lines)


def _status(shards: ImageTextShards, reader: LabelReader) -> ExpertStatus:
    statuses = reader.statuses()
    failures = Counter((s.label, _reason(s, text)) for _, _, s, text in reader.failures())
    return ExpertStatus(
        expert=reader.manifest.expert,
        folder=reader.folder,
        shards_labelled=len(set(reader.shards) & set(shards.shards)),
        shards=len(shards.shards),
        images_labelled=round(reader.coverage(shards) * len(shards)),
        images=len(shards),
        statuses={Status(s).label: count for s, count in sorted(statuses.items())},
        failures=dict(failures.most_common()),
        damaged=damage(reader.folder, shards),
        other_data=not belongs(reader.folder, shards),
    )


def _reason(status: Status, message: str) -> str:
    """What to count: the reason's class of a decoding error, else the message's beginning."""
    return message.partition(":")[0] if status == Status.DECODE_ERROR else message[:80]
