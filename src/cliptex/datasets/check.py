"""Whether a downloaded benchmark is whole: what lies in a folder, what is missing, how many."""

from __future__ import annotations

from pathlib import Path

from cliptex.datasets.catalogue import checked
from cliptex.datasets.check_decode import decode_all
from cliptex.datasets.check_report import CheckReport


def recognise(path: Path) -> list[str]:
    """The kinds whose layout is in `path`, which may hold several (NYU's depth and normals)."""
    return [kind for kind, row in checked().items() if row.read_check().find(path) is not None]


def check_dataset(
    path: Path, kind: str | None = None, *, decode: bool = False
) -> list[CheckReport]:
    """One report per layout found in `path`, or that of `kind` alone.

    decode: also read every picture with its mask, depth or normals, which takes a while.

    Raises FileNotFoundError where `path` does not exist, ValueError where no layout is
    recognised, or not that of `kind`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    known = checked()
    kinds = [kind] if kind else recognise(path)
    reports = []
    for name in kinds:
        row = known[name]
        check = row.read_check()
        place = check.find(path)
        if place is None:
            raise ValueError(f"{path}: no {name} in it; expected:\n{check.text}\n{row.source}")
        report = CheckReport(
            kind=name, layout=row.name, path=place, source=row.source, official=row.counts
        )
        check.fill(report)
        if decode:
            decode_all(report)
        reports.append(report)
    if not reports:
        raise ValueError(
            f"{path}: none of the layouts {sorted(known)} is recognised; name one as `kind` to "
            "see the files that it expects"
        )
    return reports
