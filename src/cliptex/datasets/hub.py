"""Data sets of the Hugging Face library, on disk or by hub id, as this package's readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.ade20k import NUM_CLASSES
from cliptex.datasets.class_ids import check_ids, decode_ids
from cliptex.datasets.coco import CocoObjects
from cliptex.datasets.imagenet import imagenet_names
from cliptex.datasets.protocol import (
    SPLIT_FIELDS,
    DenseItem,
    paired,
    refuse_empty,
)
from cliptex.datasets.voc import IGNORE, VOC_CLASSES
from cliptex.files.network import asking_hub, unavailable
from cliptex.labels.kinds import ClassMap
from cliptex.machine import need
from cliptex.shards.images import decode_image
from cliptex.shards.json_files import caption_texts

LAYOUT = """  FOLDER of Dataset.save_to_disk or DatasetDict.save_to_disk,
  FOLDER/SPLIT*.parquet or FOLDER/data/SPLIT*.parquet,
  or the id of a data set on the hub: ORG/NAME, ORG/NAME@REVISION"""
IMAGE_COLUMNS = ("image", "img", "jpg", "picture")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label", "scene_category")
MASK_COLUMNS = ("mask", "annotation", "segmentation", "label", "semantic_mask")
CAPTION_COLUMNS = ("captions", "caption", "sentences", "text", "raw")
REMEDY = "other classes need the layout voc or ade20k on disk, with a list of their names"
OBJECTS = "objects"
KEYS = ("bbox", "category")  # of an object; `area` is read where it is there
SLACK = 2.0  # pixels by which a box may leave its picture: edges are rounded
IMAGENET_FIRST = "tench, Tinca tinca"  # how imagenet-1k on the hub calls its first class


class Rows:
    """One split with its picture column left undecoded; decoding is this package's own.

    arrays: pictures are arrays (3, H, W) float32 from 0 to 1, not encoded files.
    """

    def __init__(self, source: str | Path, split: str, *, arrays: bool = False) -> None:
        self.source = str(source)
        self.data, alone = _load(self.source, split)
        refuse_empty(self.data, f"{self.source}, split {split!r},", "no row")
        # a lone set that does not say what it is gives the same rows for any split
        self.pictures = [f"row {row}" for row in range(len(self.data))] if alone else []
        if arrays:
            self.image = self.column(IMAGE_COLUMNS, "picture")
        else:
            self.image = self.column(IMAGE_COLUMNS, "picture", kind="Image")
            self.keep_raw(self.image)

    def keep_raw(self, column: str) -> None:
        """Leave the files of `column` undecoded."""
        image = _library(self.source).Image(decode=False)
        self.data = self.data.cast_column(column, image)

    def column(self, names: tuple[str, ...], what: str, kind: str | None = None) -> str:
        """The first of `names` among the columns; ValueError lists what there is."""
        for name in names:
            feature = self.data.features.get(name)
            if feature is not None and (kind is None or type(feature).__name__ == kind):
                return name
        raise ValueError(
            f"{self.source}: no {what} column among {sorted(self.data.features)}; expected one "
            f"of {list(names)}: rename it (Dataset.rename_column)"
        )

    def planes(self, index: int, column: str, channels: int) -> np.ndarray:
        """A cell of numbers as (H, W, channels) float32; it is stored as (channels, H, W)."""
        row = self.data.select_columns([column]).with_format("numpy")[index]
        where = f"{self.source}, row {index}: column {column!r}"
        try:
            values = np.asarray(row[column], np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} is no array of numbers: {error}") from error
        if values.ndim != 3 or values.shape[0] != channels or not values.size:
            raise ValueError(f"{where} has shape {values.shape}, expected ({channels}, H, W)")
        return np.ascontiguousarray(values.transpose(1, 2, 0))

    def numbers(self, column: str) -> np.ndarray:
        """All of a column of whole numbers, (N,) int64; ValueError names a row of another value."""
        values = list(self.data[column])
        odd = next((row for row, value in enumerate(values) if not isinstance(value, int)), None)
        if odd is not None:
            raise ValueError(
                f"{self.source}, row {odd}: column {column!r} is {values[odd]!r}, expected a whole "
                "number: encode texts by Dataset.class_encode_column, leave out rows without one"
            )
        return np.asarray(values, np.int64)

    def bytes_of(self, index: int, column: str) -> bytes:
        cell = self.data[index][column]
        if cell is None:
            raise ValueError(f"{self.source}, row {index}: column {column!r} is empty")
        return cell["bytes"] or Path(cell["path"]).read_bytes()

    def picture(self, index: int, *, upright: bool = True) -> np.ndarray:
        try:
            return decode_image(self.bytes_of(index, self.image), upright=upright)
        except ValueError as error:
            raise ValueError(f"{self.source}, row {index}: {error}") from error

    def __len__(self) -> int:
        return len(self.data)


def splits_of(source: str | Path) -> list[str]:
    """The splits that are there by name; none of a lone set that does not say which it is."""
    with _in_one_line(source):
        names, read = _opened(str(source))
        if len(names) > 1:
            return names
        data = read(*names)
    return sorted(set(data["split"])) if "split" in data.features else names


class HubLabelled:
    """Pictures with one class each, from columns image and label.

    Names are those of the label's ClassLabel, of ImageNet-1k the ones that CLIP is prompted with;
    bare numbers become "class 0", ... ValueError for labels of -1 (a test split without answers)
    names the other splits.
    """

    def __init__(self, source: str | Path, split: str, *, name: str | None = None) -> None:
        self.name = name or name_of(source)
        self.place = f"{source}, split {split!r}"
        self._rows = Rows(source, split)
        self.pictures = self._rows.pictures
        column = self._rows.column(LABEL_COLUMNS, "label")
        self._labels = self._rows.numbers(column)
        if self._labels.min(initial=0) < 0:
            others = [name for name in splits_of(source) if name != split]
            remedy = f"; name one of {others} ({SPLIT_FIELDS})" if others else ""
            raise ValueError(f"{source}, {split}: labels of -1: this split has no answers{remedy}")
        names = getattr(self._rows.data.features[column], "names", None)
        if names is None:
            names = [f"class {i}" for i in range(int(self._labels.max()) + 1)]
        if names[0] == IMAGENET_FIRST and len(names) == len(imagenet_names()):
            names = imagenet_names().values()  # the hub's classes, too, follow the sorted synsets
        self.classes = tuple(names)

    splits_of = staticmethod(splits_of)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._rows.picture(index), int(self._labels[index])


class HubCaptioned:
    """Pictures with captions: a column with a list of texts, or one text, per picture.

    Rows without a caption are left out. ValueError names one that holds no texts.
    """

    def __init__(self, source: str | Path, split: str, *, name: str | None = None) -> None:
        self.name = name or name_of(source)
        self._rows = Rows(source, split)
        column = self._rows.column(CAPTION_COLUMNS, "caption")
        captions = [
            _texts(cell, f"{self._rows.source}, row {row}: column {column!r}")
            for row, cell in enumerate(self._rows.data[column])
        ]
        self._kept = [row for row, texts in enumerate(captions) if texts]
        self.captions = [captions[row] for row in self._kept]
        refuse_empty(self.captions, f"{source}, split {split!r},", "no picture with a caption")

    def __len__(self) -> int:
        return len(self._kept)

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, (H, W, 3) uint8 RGB."""
        return self._rows.picture(self._kept[index])


class HubMasks:
    """Pictures and class maps from columns image and mask (a PNG of class ids).

    scheme: voc (0 is the background, 1..20, 255 ignored), or ade20k (0 is ignored, 1..150).
    """

    def __init__(self, source: str | Path, split: str, *, scheme: str, name: str | None = None):
        self.name = name or name_of(source)
        self._rows = Rows(source, split)
        self.pictures = self._rows.pictures
        self._mask = self._rows.column(MASK_COLUMNS, "mask", kind="Image")
        self._rows.keep_raw(self._mask)
        self._from_one = scheme == "ade20k"
        numbered = tuple(f"class {i}" for i in range(1, NUM_CLASSES + 1))
        self.kind = ClassMap(numbered if self._from_one else VOC_CLASSES, IGNORE)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> DenseItem:
        row = f"{self._rows.source}, row {index}"
        mask = f"{row}, column {self._mask!r}"
        ids = decode_ids(self._rows.bytes_of(index, self._mask), mask)
        if self._from_one:
            check_ids(ids, NUM_CLASSES + 1, mask, REMEDY)
        else:
            check_ids(ids, len(VOC_CLASSES), mask, REMEDY, ignore=IGNORE)
        target = ids.astype(np.uint8)
        target = target - np.uint8(1) if self._from_one else target  # wraps: 0 -> 255
        return paired(self._rows.picture(index, upright=False), target, row, mask)


def _texts(cell: Any, where: str) -> list[str]:
    """The captions of a cell, without those that are null."""
    try:
        return caption_texts(cell)
    except ValueError as error:
        raise ValueError(f"{where} holds {error} or a list of texts") from error


HubVoc, HubAde20k = partial(HubMasks, scheme="voc"), partial(HubMasks, scheme="ade20k")


def name_of(source: str | Path) -> str:
    """What results call a set: its folder, or the last part of its id."""
    return Path(str(source).partition("@")[0]).name


def _load(source: str, split: str) -> tuple[Any, bool]:
    """The rows of `split`, also where they are marked by a column `split` of another split.

    And whether they are all rows of a set that does not say which split it is.

    (nlphuji/flickr30k keeps all its 31,014 pictures in "test", and says in a column to which of
    Karpathy's splits each belongs.)
    """
    with _in_one_line(source):
        names, read = _opened(source)
        chosen = [split] if split in names else names
        if len(chosen) > 1:
            raise ValueError(f"{source}: no split {split!r}, only {sorted(names)}")
        data = read(*chosen)  # the only one there is may have a column that tells rows apart
    if "split" in data.features:
        marks = list(data["split"])
        rows = [row for row, mark in enumerate(marks) if mark == split]
        if not rows:
            raise ValueError(f"{source}: no rows of split {split!r}, only {sorted(set(marks))}")
        return data.select(rows), False
    if chosen and chosen != [split]:
        raise ValueError(f"{source}: no split {split!r}, only {chosen[0]!r}")
    return data, not chosen


@contextmanager
def _in_one_line(source: str | Path) -> Iterator[None]:
    """Raise errors of the library as a ValueError that names `source`."""
    library = _library(source)
    try:
        yield
    except (RuntimeError, library.exceptions.DatasetsError) as error:
        raise ValueError(f"{source}: {error}") from error


def _library(source: str | Path) -> Any:
    return need("datasets", extra="hub", what=f"reading the data set {source}")


def _opened(source: str) -> tuple[list[str], Callable[..., Any]]:
    """The names of the splits, and what reads the rows of one; of a nameless lone set, of none."""
    return _local(source) if Path(source).is_dir() else _remote(source)


def _local(source: str) -> tuple[list[str], Callable[..., Any]]:
    library = _library(source)
    folder = Path(source)
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        data = library.load_from_disk(source)
        if isinstance(data, library.DatasetDict):
            return [str(name) for name in data], data.__getitem__
        return [] if data.split is None else [str(data.split)], lambda *_: data
    shards: dict[str, list[Any]] = {}
    for path in sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")]):
        shards.setdefault(path.stem.split("-")[0], []).append(str(path))  # train-00000-of-00012
    if not shards:
        raise FileNotFoundError(f"{folder} holds no data set; expected:\n{LAYOUT}")
    return list(shards), lambda name: library.Dataset.from_parquet(shards[name])


def _remote(source: str) -> tuple[list[str], Callable[..., Any]]:
    library = _library(source)
    name, _, revision = source.partition("@")
    version = {"revision": revision or None}

    def read(split: str) -> Any:
        with _from_hub(source):
            return library.load_dataset(name, split=split, **version)

    with _from_hub(source):
        return library.get_dataset_split_names(name, **version), read


@contextmanager
def _from_hub(source: str) -> Iterator[None]:
    """Raise errors of the network, whose libraries share no base, as a ValueError with a remedy."""
    try:
        with asking_hub():
            yield
    except (ValueError, RuntimeError, FileNotFoundError):
        raise  # about the data set, not about reaching it
    except Exception as error:
        raise unavailable(f"the data set {source}", error) from error


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
                "SSD alone (`heads=ssd`), or read COCO's own files (`dataset=coco`)"
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
