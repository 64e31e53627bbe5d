"""Is this data set sound? Every image decoded once, every caption read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cliptex.console import track
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image
from cliptex.shards.index import MISSING

_CHECK_SIDE = 32
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings.

    Attributes:
        shards, samples, captions: counts; a sample is an image with or without a caption.
        counts: how many of each kind of problem ("duplicate key", "missing text", ...).
        problems: one line each, with shard and key.
        shared_keys: keys that occur in more than one shard; harmless, as samples are joined by
            shard and key, but often a sign of two imports in one folder.
    """

    shards: int
    samples: int
    captions: int
    counts: dict[str, int]
    problems: tuple[str, ...]
    shared_keys: int

    @property
    def ok(self) -> bool:
        """True where nothing is wrong; the exit status of the command."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.shards} shards, {self.samples} images, {self.captions} captions"]
        lines += [f"{count:8d}  {kind}" for kind, count in sorted(self.counts.items())]
        if self.shared_keys:
            lines.append(f"{self.shared_keys:8d}  keys occur in several shards (harmless)")
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  ... and {len(self.problems) - _SHOWN} more")
        lines.append("sound" if self.ok else f"{len(self.problems)} problems")
        return "\n".join(lines)


def check(shards: ImageTextShards, *, decode: bool = True) -> CheckReport:
    """Check all shards; `decode=False` leaves out the decoding of every image.

    Kinds of problems: "duplicate key", "missing image", "missing text", "empty caption",
    "undecodable image", "refused" (member names and links), "truncated" or "unfinished" (tar).
    Of shards opened with `on_damaged="keep"`, those that are not read at all are "unreadable".
    """
    problems: list[tuple[str, str]] = []
    captions = 0
    keys: Counter[bytes] = Counter()
    for shard in shards.damaged.keys() - set(shards.shards):
        problems.append(("unreadable", f"{shard}: {shards.damaged[shard]}"))
    for shard in shards.shards:
        index = shards.index(shard)
        keys.update(index.names.tolist())
        for problem in index.problems:
            kind, _, detail = problem.partition(": ")
            problems.append((kind, f"{shard}: {detail}"))
    for number in track(range(len(shards)), label="checking"):
        captions += _check_sample(shards, number, decode, problems)
    return CheckReport(
        shards=len(set(shards.shards) | shards.damaged.keys()),
        samples=len(shards),
        captions=captions,
        counts=dict(Counter(kind for kind, _ in problems)),
        problems=tuple(f"{kind}: {detail}" for kind, detail in problems),
        shared_keys=sum(count > 1 for count in keys.values()),
    )


def _check_sample(
    shards: ImageTextShards, number: int, decode: bool, problems: list[tuple[str, str]]
) -> int:
    """Check one sample; its number of captions."""
    shard, key = shards.locate(number)
    index = shards.index(shard)
    where = f"{shard}: {key}"
    captions = shards.read_caption(number).splitlines()
    if index.table["text_offset"][index.row(key)] == MISSING:
        problems.append(("missing text", where))
    elif not captions:
        problems.append(("empty caption", where))
    if decode:
        try:
            decode_image(shards[number].image, min_side=_CHECK_SIDE)
        except ImageError as error:
            problems.append(("undecodable image", f"{where}: {error}"))
    return len(captions)
