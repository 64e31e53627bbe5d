"""How far labelling has come: per expert, what is labelled and what failed, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cliptex.files import AnyPath, ask, exists
from cliptex.labelling.growth import belongs, damage
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import FILE_NAME
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards


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
