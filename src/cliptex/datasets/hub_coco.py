"""Boxes of objects as data sets of the Hugging Face library keep them (detection-datasets/coco)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.coco_objects import CocoObjects
from cliptex.datasets.hub import Rows, name_of, splits_of

OBJECTS = "objects"
KEYS = ("bbox", "category")  # of an object; `area` is read where it is there
SLACK = 2.0  # pixels by which a box may leave its picture: edges are rounded


class HubCoco(CocoObjects):
    """Pictures with boxes, without masks: columns image, width, height and objects.

    `objects` are lists `bbox` (left, top, right, bottom in pixels, as detection-datasets/coco has
    them, not COCO's left, top, width, height), `category` (a ClassLabel) and, where there is one,
    `area` (else that of the box); or a list of such dictionaries. `image_id` is used where the
    column is there. Crowds are not marked, so every box is an object.

    Category ids are labels, 1 more than the set's numbers. ValueError for a set without these
    columns (it lists those found), boxes that are no corners inside the picture, or categories
    without names, and where `masks` are asked for.
    """

    def __init__(
        self, source: str | Path, split: str, *, name: str | None = None, masks: bool = False
    ) -> None:
        self.name = name or name_of(source)
        self.place = f"{source}, split {split!r}"
        if masks:
            raise ValueError(
                f"{self.place} has boxes without masks, from which Mask R-CNN cannot learn; train "
                "SSD alone (`probe` ssd), or read COCO's own files (`dataset` coco)"
            )
        self._rows = Rows(source, split)
        self.pictures = self._rows.pictures
        names = _names(self._rows)
        content = _content(self._rows, self.place, names)
        super().__init__(content, content["images"], self.place, masks=False)

    splits_of = staticmethod(splits_of)

    def picture(self, index: int) -> tuple[np.ndarray, str]:
        return self._rows.picture(index, upright=False), f"{self._rows.source}, row {index}"


def _names(rows: Rows) -> list[str]:
    """The names of the categories; ValueError for a set of other columns."""
    for column in ("width", "height"):
        rows.column((column,), column)
    feature: Any = rows.data.features[rows.column((OBJECTS,), OBJECTS)]
    inner: Any = feature if isinstance(feature, dict) else getattr(feature, "feature", {})
    parts = inner if isinstance(inner, dict) else {}
    absent = [key for key in KEYS if key not in parts]
    if absent:
        raise ValueError(
            f"{rows.source}: column {OBJECTS!r} has no {' and no '.join(absent)} among "
            f"{sorted(parts)}; expected lists of {' and '.join(KEYS)}"
        )
    category = parts["category"]
    names = getattr(getattr(category, "feature", category), "names", None)
    if names is None:
        raise ValueError(
            f"{rows.source}: column {OBJECTS!r}: categories have no names: cast them to a "
            "ClassLabel (Dataset.cast)"
        )
    return list(names)


def _content(rows: Rows, place: str, names: list[str]) -> dict[str, Any]:
    """COCO's dictionary of all rows."""
    wanted = [OBJECTS, "width", "height"]
    wanted += ["image_id"] if "image_id" in rows.data.features else []
    images, annotations = [], []
    for row, about in enumerate(rows.data.select_columns(wanted)):
        number = int(about.get("image_id", row + 1))
        size = {"height": int(about["height"]), "width": int(about["width"])}
        images.append({"id": number, **size})
        for thing in _things(about[OBJECTS]):
            box = _box(thing["bbox"], size["width"], size["height"], f"{place}, row {row}")
            entry = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, "bbox": box}
            area = thing.get("area")
            entry["area"] = box[2] * box[3] if area is None else float(area)
            annotations.append({**entry, "category_id": int(thing["category"]) + 1})
    if len({image["id"] for image in images}) < len(images):
        raise ValueError(f"{place}: several rows have one image_id: give each row its own")
    listed = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": listed}


def _things(objects: Any) -> list[dict[str, Any]]:
    """A dictionary per object, of a dictionary of lists or already such a list."""
    if isinstance(objects, dict):
        used = [key for key in (*KEYS, "area") if objects.get(key) is not None]
        columns = (objects[key] for key in used)
        return [dict(zip(used, one, strict=True)) for one in zip(*columns, strict=True)]
    return list(objects or [])


def _box(corners: Any, width: int, height: int, where: str) -> list[float]:
    """Left, top, width, height of corners; ValueError where they are none inside the picture."""
    if len(corners) == 4 and all(map(math.isfinite, corners)):
        left, top, right, bottom = map(float, corners)
        across = -SLACK <= left <= right <= width + SLACK
        if across and -SLACK <= top <= bottom <= height + SLACK:
            return [left, top, right - left, bottom - top]
    raise ValueError(
        f"{where}: bbox {list(corners)} in a picture {width} wide and {height} high; "
        "expected [left, top, right, bottom] in pixels inside it, not COCO's [left, top, width, "
        "height]: convert it (Dataset.map)"
    )
