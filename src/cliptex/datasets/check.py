"""Whether a downloaded benchmark is whole: what lies in a folder, what is missing, how many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cliptex.datasets.catalogue import LAYOUTS, checked, open_dataset
from cliptex.datasets.check_report import CheckReport
from cliptex.datasets.coco import CocoInstances, read_mask
from cliptex.datasets.overlap import in_threads, reader_of


def recognise(path: Path) -> list[str]:
    """What checks call the layouts found in `path`; there may be several (depth and normals)."""
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


def decode_all(report: CheckReport) -> None:
    """Read every item of the splits that `report` found; broken ones are added to it."""
    for split in report.splits:
        try:
            sets = _readers(split.layout or report.layout, report.path, split.name)
        except (ValueError, OSError) as error:
            report.missing.append(f"{split.name} cannot be read: {_line(error)}")
            continue
        for one in sets:
            reader = partial(_objects, one) if isinstance(one, CocoInstances) else reader_of(one)
            read = partial(_fault, reader)
            label = f"decoding {report.kind}, {split.name}"
            report.broken += [said for said in in_threads(read, len(one), label) if said]


def _readers(layout: str, place: Path, split: str) -> list[Any]:
    """Readers of all that lies in a split."""
    row = LAYOUTS[layout]
    if row.depths:
        return [row.open(place, split, depths=depths) for depths in sorted(row.depths)]
    return [open_dataset(layout, place, split)]


def _objects(data: CocoInstances, index: int) -> None:
    """Read a picture with its boxes, and each mask that is there, also of crowds."""
    height, width = data.item(index, masks=False).image.shape[:2]
    for annotation in data.ground_truth([index])["annotations"]:
        if annotation.get("segmentation"):
            read_mask(annotation, height, width, data.place)


def _fault(read: Callable[[int], object], index: int) -> str:
    """What is wrong with an item; "" for nothing."""
    try:
        read(index)
    except (ValueError, OSError) as error:
        return _line(error)
    return ""


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
