"""Every picture and mask of a benchmark, decoded: a broken one else ends a probe after hours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cliptex.datasets.catalogue import LAYOUTS, open_dataset
from cliptex.datasets.check_report import CheckReport
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.coco_objects import read_mask
from cliptex.datasets.overlap import in_threads, reader_of


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
    return [row.open(place, split, depths=depths) for depths in sorted(row.depths)] or [
        open_dataset(layout, place, split)
    ]


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
