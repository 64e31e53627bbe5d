"""What is found wrong or odd in shards: lines "KIND: DETAIL", counted and put into words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from cliptex.files import AnyPath, parse_json, read_bytes
from cliptex.shards.json_files import shown

_COUNTED = re.compile(r"(\d+), such as (.*)", re.DOTALL)

# What users of a data set are told of each kind before they read it. What makes a shard useless
# ("truncated", "no sample") is reported as damage.
_TOLD = {
    "unfinished": "shards end without an end-of-archive mark and may lack samples: copy them again",
    "fewer samples": "samples that NAME_stats.json counts are missing in its shard: copy it again",
    "stats": "shards have a NAME_stats.json that cannot be read, so that samples are not counted",
    "more samples": "samples are more than NAME_stats.json counts of its shard",
    "empty": "shards hold no sample",
    "ignored": (
        "members end in an image's or a text's suffix and belong to no sample, as a key ends at "
        "the first dot of the base name"
    ),
    "several images": "samples have several images; one is read, by the order in docs/shards.md",
    "duplicate key": "members are there twice; the first is read",
    "refused": "members are refused",
    "missing image": "captions have no image",
}
# Those of which a data set may be full and sound.
HARMLESS = ("empty", "ignored", "several images", "more samples")


def counted(kind: str, count: int, example: str) -> str:
    """One line for many cases of a kind."""
    return f"{kind}: {count}, such as {example}"


def parts_of(problem: str) -> tuple[str, int, str]:
    """(kind, count, example) of a line."""
    kind, _, detail = problem.partition(": ")
    match = _COUNTED.fullmatch(detail)
    return (kind, int(match[1]), match[2]) if match else (kind, 1, detail)


def summary(problems: Mapping[str, Iterable[str]]) -> list[str]:
    """A line per kind of the problems of many shards (by path), with its count and one example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for shard, lines in problems.items():
        for line in lines:
            kind, count, example = parts_of(line)
            counts[kind] += count
            examples.setdefault(kind, f"{shard}: {example}")
    return [
        f"{counts[kind]} {_TOLD[kind]}; such as {examples[kind]}" for kind in _TOLD if counts[kind]
    ]


def stats_problem(tar: AnyPath, samples: int) -> str:
    """What `NAME_stats.json` beside a tar of so many samples says against it; "" for nothing.

    Its `successes` is the number of samples, in img2dataset's words.
    """
    stats = tar.with_name(f"{tar.stem}_stats.json")
    try:
        data = read_bytes(stats)
    except OSError:  # it is not there, or may not be read
        return ""
    try:
        content = parse_json(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return f"stats: {stats.name} is no JSON object; remove it or write it again"
    told = content.get("successes")
    if told is None or (type(told) is int and told == samples):
        return ""
    if type(told) is not int or told < 0:
        return f"stats: {stats.name} counts {shown(told)} samples; remove it or write it again"
    kind = "fewer samples" if told > samples else "more samples"
    example = f"{stats.name} counts {told}, the tar holds {samples}"
    return counted(kind, abs(told - samples), example)
