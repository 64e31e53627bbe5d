"""Is this data set sound? Every image decoded once, every caption read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cliptex.console import track
from cliptex.shards.captions import CaptionError
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image
from cliptex.shards.problems import HARMLESS, summary

_CHECK_SIDE = 32
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The findings.

    Attributes:
        shards, samples, captions: counts; a sample is an image with or without a caption.
        sources: how many samples have their captions in which member ("KEY.txt", ...).
        counts: how many of each kind of problem ("duplicate key", "missing text", ...).
        problems: one line each, with shard and key.
        remarks: one line each on what is odd, of which a set may be sound.
        shared_keys: keys that occur in more than one shard; harmless, as samples are joined by
            shard and key, but often a sign of two imports in one folder.
    """

    shards: int
    samples: int
    captions: int
    sources: dict[str, int]
    counts: dict[str, int]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    shared_keys: int

    @property
    def ok(self) -> bool:
        """True where nothing is wrong; the exit status of the command."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{self.shards} shards, {self.samples} images, {self.captions} captions"]
        lines += [f"{count:8d}  with captions in {name}" for name, count in self.sources.items()]
        lines += [f"{count:8d}  {kind}" for kind, count in sorted(self.counts.items())]
        if self.shared_keys:
            lines.append(f"{self.shared_keys:8d}  keys occur in several shards (harmless)")
        lines += [f"  {remark}" for remark in self.remarks]
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"  ... and {len(self.problems) - _SHOWN} more")
        lines.append("sound" if self.ok else f"{len(self.problems)} problems")
        return "\n".join(lines)


def check(shards: ImageTextShards, *, decode: bool = True) -> CheckReport:
    """Check all shards; `decode=False` leaves out the decoding of every image.

    Kinds of problems: "duplicate key", "missing image", "missing text", "unreadable text", "empty
    caption", "undecodable image", "refused" (member names and links), "no sample", "truncated",
    "unfinished" (tar), "fewer samples" or "stats" (NAME_stats.json beside it). Of shards opened
    with `on_damaged="keep"`, those that are not read at all are "unreadable". `HARMLESS` kinds are
    remarks.
    """
    problems: list[tuple[str, str]] = []
    odd: dict[str, list[str]] = {}
    captions = 0
    keys: Counter[bytes] = Counter()
    sources: Counter[str] = Counter()
    for shard in shards.damaged.keys() - set(shards.shards):
        problems.append(("unreadable", f"{shard}: {shards.damaged[shard]}"))
    for shard in shards.shards:
        index = shards.index(shard)
        keys.update(index.names.tolist())
        for problem in shards.problems(shard):
            kind, _, detail = problem.partition(": ")
            if kind not in HARMLESS:
                problems.append((kind, f"{shard}: {detail}"))
            else:
                odd.setdefault(shard, []).append(problem)
    for number in track(range(len(shards)), label="checking"):
        source, found = _check_sample(shards, number, decode, problems)
        captions += found
        sources[source] += found > 0
    return CheckReport(
        shards=len(set(shards.shards) | shards.damaged.keys()),
        samples=len(shards),
        captions=captions,
        sources=dict(+sources),
        counts=dict(Counter(kind for kind, _ in problems)),
        problems=tuple(f"{kind}: {detail}" for kind, detail in problems),
        remarks=tuple(summary(odd)),
        shared_keys=sum(count > 1 for count in keys.values()),
    )


def _check_sample(
    shards: ImageTextShards, number: int, decode: bool, problems: list[tuple[str, str]]
) -> tuple[str, int]:
    """Check one sample; the member with its captions, and their number."""
    shard, key = shards.locate(number)
    where = f"{shard}: {key}"
    source, captions = shards.caption_source(number), 0
    try:
        captions = len(shards.read_caption(number).splitlines())
        if not captions:
            problems.append(
                ("missing text" if source in ("", "KEY.json") else "empty caption", where)
            )
    except CaptionError as error:
        problems.append(("unreadable text", str(error)))
    if decode:
        try:
            decode_image(shards.read_image(shard, key), min_side=_CHECK_SIDE)
        except ImageError as error:
            problems.append(("undecodable image", f"{where}: {error}"))
    return source, captions
