"""What a check of a benchmark's files says, and the few steps that all checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split as it lies on disk.

    count: items listed. official: items of the release, None where there is none to compare with.
    absent: files that are listed and missing; example: the first of them. layout: what reads the
    split, "" for the layout that is checked.
    """

    name: str
    count: int
    official: int | None = None
    absent: int = 0
    example: str = ""
    layout: str = ""

    def __str__(self) -> str:
        text = f"  {self.name}: {self.count:,}"
        if self.official is not None:
            less = "" if self.count == self.official else ", not the whole set"
            more = ", more than the release has" if self.count > self.official else less
            text += f" of {self.official:,}{more}"
        if self.absent:
            text += f"; {self.absent:,} files are missing, beginning with {self.example}"
        return text


@dataclass(kw_only=True)
class CheckReport:
    """One layout found at `path`, filled by its check.

    `kind` is what checks call `layout`.
    `official` are the items of the release by split, `source` says where it is to be had.
    `missing` names essential parts, `broken` what does not decode (where that was tried), `notes`
    what may surprise.
    """

    kind: str
    layout: str
    path: Path
    source: str
    official: Mapping[str, int]
    splits: list[Split] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every part and file that the found splits need is there and sound, and one split
        is not empty."""
        whole = not self.broken and not any(split.absent for split in self.splits)
        return whole and not self.missing and any(split.count for split in self.splits)

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.path}", *map(str, self.splits)]
        lines += [f"  missing: {part}" for part in self.missing]
        if not any(split.count for split in self.splits):
            lines.append("  missing: every split is empty")
        lines += [f"  broken: {said}" for said in self.broken]
        lines += [f"  note: {note}" for note in self.notes]
        if not self.ok or any(s.official not in (None, s.count) for s in self.splits):
            lines.append(f"  from: {self.source}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a layout is found and checked.

    text: the files that it has, for messages. find: the place in a folder where it begins, or
    None. fill: adds to the report of that place what is there, what is missing and what is odd.
    """

    text: str
    find: Callable[[Path], Path | None]
    fill: Callable[[CheckReport], None]


def first_with(path: Path, below: Iterable[str], marks: Iterable[str]) -> Path | None:
    """The first of `path` and its folders `below` that holds one of `marks` (paths or globs)."""
    for place in (path, *(path / name for name in below)):
        if place.is_dir() and any(next(place.glob(mark), None) for mark in marks):
            return place
    return None


def names_in(folder: Path) -> set[str]:
    """The names in a folder; none where there is no folder."""
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def split_of(
    name: str, listed: Iterable[str], there: set[str], official: int | None, where: Path
) -> Split:
    """A split whose `listed` files should be among the names `there` of the folder `where`."""
    listed = list(listed)
    absent = [file for file in listed if file not in there]
    return Split(
        name=name,
        count=len(listed),
        official=official,
        absent=len(absent),
        example=str(where / absent[0]) if absent else "",
    )


def split_of_pairs(
    name: str, files: Sequence[tuple[Path, Path | None]], official: int | None
) -> Split:
    """A split of pictures with a file of ground truth each, which may lie in the picture's file."""
    lost = [path for pair in files for path in dict.fromkeys(pair) if path and not path.exists()]
    example = str(lost[0]) if lost else ""
    return Split(name=name, count=len(files), official=official, absent=len(lost), example=example)


def read_annotations(path: Path, read: Callable[[Path], T], report: CheckReport) -> T | None:
    """What a file of COCO holds; None, said in the report, where it is absent or damaged."""
    if not path.exists():
        report.notes.append(f"no annotations/{path.name}")
        return None
    try:
        return read(path)
    except ValueError as error:
        report.missing.append(str(error).splitlines()[0])
        return None
