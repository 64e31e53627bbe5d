"""COCO instances: boxes, masks and crowds of one split in the original layout."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    first_with,
    names_in,
    read_annotations,
    split_of,
)
from cliptex.datasets.protocol import (
    DetectionItem,
    read_image,
    refuse_empty,
    refuse_missing,
    require,
    unknown_split,
)
from cliptex.shards.json_files import (
    check_entries,
    check_id,
    check_images,
    read_json,
    refuse_twice,
    require_numbers,
)

FAR = 1e5  # pixels that a polygon may reach to: one of 1e9 would be filled for hours
HELP = ": take it out, or export the set again"


class CocoObjects:
    """What readers of boxes share: items, and the dictionary that scoring takes.

    Args:
        content: COCO's dictionary: `images` (id, height, width), `annotations` (id, image_id,
            category_id, bbox as left, top, width, height, area, iscrowd, where there are masks
            segmentation), `categories` (id, name).
        images: those of the set, in its order.
        source: what lists them, for messages.
        masks: annotations have a segmentation that `item` may be asked for.

    Readers say how they are called, `name`, and read pictures, `picture`. ValueError for an
    annotation of an image or category that is not listed.
    """

    name: str

    def __init__(
        self,
        content: dict[str, Any],
        images: list[dict[str, Any]],
        source: object,
        *,
        masks: bool,
    ) -> None:
        self._has_masks = masks
        self._source = source
        categories = sorted(content["categories"], key=lambda c: c["id"])
        self.classes = tuple(str(c["name"]) for c in categories)
        self.category_ids = tuple(int(c["id"]) for c in categories)
        self._categories = categories
        self._images = images
        self.image_ids = tuple(int(image["id"]) for image in images)
        known = {int(image["id"]) for image in content["images"]}
        self._objects = _objects(content["annotations"], known, set(self.category_ids), source)
        self._labels = {number: k for k, number in enumerate(self.category_ids, start=1)}

    def picture(self, index: int) -> tuple[np.ndarray, object]:
        """Picture `index`, (H, W, 3) uint8 RGB as it is stored, and what messages call it."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._images)

    def item(self, index: int, *, masks: bool) -> DetectionItem:
        """The picture at `index` with its objects; ValueError where its size is not as listed."""
        about = self._images[index]
        image, place = self.picture(index)
        height, width = about["height"], about["width"]
        if image.shape[:2] != (height, width):
            raise ValueError(
                f"{place} has {image.shape[0]}x{image.shape[1]} pixels, its annotations are for "
                f"{height}x{width}: use the images that the annotations were made for"
            )
        seen = [(a, box) for a in self._singles(index) if (box := _clipped(a, height, width))]
        boxes = np.array([box for _, box in seen], np.float32).reshape(-1, 4)
        labels = np.array([self._labels[a["category_id"]] for a, _ in seen], np.int64)
        planes = None
        if masks:
            if not self._has_masks:
                raise ValueError(f"{self.name} was opened without masks")
            planes = np.zeros((len(seen), height, width), np.uint8)
            for plane, (annotation, _) in zip(planes, seen, strict=True):
                plane[:] = read_mask(annotation, height, width, self._source)
        return DetectionItem(image=image, boxes=boxes, labels=labels, masks=planes)

    def with_objects(self) -> list[int]:
        """Indices of pictures with at least one object to learn from."""
        found = []
        for index, about in enumerate(self._images):
            size = about["height"], about["width"]
            if any(_clipped(a, *size) for a in self._singles(index)):
                found.append(index)
        return found

    def ground_truth(self, indices: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        """COCO's dictionary of the pictures at `indices`, crowds included."""
        images = [self._images[i] for i in indices]
        annotations = [a for image in images for a in self._objects[int(image["id"])]]
        return {"images": images, "annotations": annotations, "categories": self._categories}

    def _singles(self, index: int) -> list[dict[str, Any]]:
        return [a for a in self._objects[self.image_ids[index]] if not a.get("iscrowd", 0)]


def mask_code(segmentation: Any, height: int, width: int) -> Any:
    """A compressed run-length code of polygons, or of a run-length code, compressed or not."""
    from faster_coco_eval.core import mask as codes  # 0.2 s to import; only detection needs it

    if isinstance(segmentation, list):
        polygons: Any = codes.frPyObjects(segmentation, height, width)
        return codes.merge(polygons)
    if isinstance(segmentation["counts"], list):
        return codes.frPyObjects(segmentation, height, width)
    return segmentation


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """(H, W) uint8 of 0 and 1 from whatever `mask_code` takes."""
    from faster_coco_eval.core import mask as codes

    return codes.decode(mask_code(segmentation, height, width))


def read_mask(annotation: dict[str, Any], height: int, width: int, source: object) -> np.ndarray:
    """(H, W) uint8 of 0 and 1; ValueError names `source` and the annotation where it is damaged."""
    segmentation = annotation["segmentation"]
    fault = mask_fault(segmentation, height, width)
    if not fault:
        try:
            return decode_mask(segmentation, height, width)
        except (RuntimeError, ValueError) as error:  # a compressed code too short for its picture
            fault = f"damaged ({str(error).splitlines()[0]}){HELP}"
    raise ValueError(f"{source}: the mask of annotation {annotation['id']} is {fault}")


def mask_fault(segmentation: Any, height: int, width: int) -> str:
    """What a damaged segmentation is instead of a mask of this size; "" where it seems sound."""
    if isinstance(segmentation, list):
        sound = all(map(_is_polygon, segmentation))
        return "" if sound else f"no list of polygons [x, y, ...]{HELP}"
    if not isinstance(segmentation, dict):
        return f"neither polygons nor a run-length code{HELP}"
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        return f"a run-length code of size {size} in a picture of [{height}, {width}]{HELP}"
    if isinstance(counts, list):
        sound = all(isinstance(run, int) and run >= 0 for run in counts)
        sound = sound and sum(counts) == height * width
        return "" if sound else f"a run-length code that does not cover its picture{HELP}"
    if not isinstance(counts, str):
        return f"a run-length code without counts{HELP}"
    from faster_coco_eval.core import mask as codes

    try:
        codes.area(segmentation)
    except (RuntimeError, ValueError) as error:
        return f"damaged ({str(error).splitlines()[0]}){HELP}"
    return ""


def _is_polygon(part: Any) -> bool:
    try:
        finite = isinstance(part, list) and len(part) >= 4 and isfinite(sum(part))
        return finite and min(part) >= -FAR and max(part) <= FAR
    except TypeError:  # not numbers
        return False


def _objects(
    annotations: list[dict[str, Any]], images: set[int], categories: set[int], source: object
) -> defaultdict[int, list[dict[str, Any]]]:
    """Annotations by image id."""
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        for key, known in (("image_id", images), ("category_id", categories)):
            if annotation[key] not in known:
                raise ValueError(
                    f"{source}: annotation {annotation['id']} has {key} {annotation[key]!r}, "
                    "which the file does not list"
                )
        found[int(annotation["image_id"])].append(annotation)
    return found


def _clipped(
    annotation: dict[str, Any], height: int, width: int
) -> tuple[float, float, float, float] | None:
    """The box inside the picture, None where less than a pixel of a side is left."""
    left, top, w, h = annotation["bbox"]
    right, bottom = min(left + w, width), min(top + h, height)
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None


LAYOUT = """  coco/annotations/instances_SPLIT2017.json   (or instances_SPLIT.json)
  coco/SPLIT2017/000000000001.jpg   (or SPLIT/)"""
FORM = "COCO's instances_*.json, with lists of images, annotations and categories"
PARTS: dict[str, tuple[str, ...]] = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


class CocoInstances(CocoObjects):
    """Pictures with the boxes and masks of their objects.

    Args:
        root: the folder that holds `annotations` and the images' folders.
        split: train or val (train2017 and val2017 are tried first), or another name.
        name: of the set in results.
        ids: only these images, by COCO's id, in this order.
        masks: every object must have one; without, only boxes can be read.

    Raises:
        FileNotFoundError: shows the layout, or names images that the annotations list and the
            folder lacks.
        ValueError: for a file that is not COCO's, an unknown id, an annotation of an unknown
            image or category, without a key that is needed, or, where they are needed, with a
            damaged mask.

    Category ids are sparse in COCO (1 to 90 for 80 classes): they become labels 1.. in rising
    order of the ids, as `classes` and `category_ids` list them. `place` is the annotations' file.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        name: str = "coco",
        ids: Sequence[int] | None = None,
        masks: bool = True,
    ) -> None:
        self.name = name
        root = Path(root)
        path, self._folder = _places(root, split)
        self.place = str(path)
        content = read_instances(path)
        bare = without_mask(content) if masks else []
        if bare:
            raise ValueError(
                f"{path}: {len(bare)} annotations have no 'segmentation', such as {bare[0]}: masks "
                "need polygons or a run-length code in each (SSD needs none)"
            )
        if masks:
            _refuse_damaged(content, path)
        images = _chosen(content["images"], ids, path)
        refuse_empty(images, path)
        super().__init__(content, images, path, masks=masks)
        files = [image["file_name"] for image in images]
        refuse_missing(
            self._folder, files, path, "complete the download, or pass `ids` of a subset"
        )
        home = self._folder.resolve()  # of two names of one folder, too
        self.pictures = [str(home / file) for file in files]

    @staticmethod
    def splits_of(root: Path) -> list[str]:
        """The splits that have annotations, by their short names."""
        paths = root.glob("annotations/instances_*.json")
        return sorted(path.stem.removeprefix("instances_").removesuffix("2017") for path in paths)

    def picture(self, index: int) -> tuple[np.ndarray, Path]:
        path = self._folder / self._images[index]["file_name"]
        return read_image(path, upright=False), path


def read_instances(path: Path) -> dict[str, Any]:
    """The JSON of a split; ValueError names an entry that lacks a key, or an odd id."""
    content = read_json(path, FORM, list(PARTS))
    for part, keys in PARTS.items():
        check_entries(path, content[part], part, keys)
    for part, key in (("images", "file_name"), ("categories", "name")):
        require_numbers(path, content[part], part, key)
    refuse_twice(path, content["categories"], "categories")
    check_images(path, content["images"])
    for image in content["images"]:
        image["file_name"] = str(Path(image["file_name"]))  # "./a.jpg" and "a.jpg" are equal
        if not all(isinstance(image[key], int) and image[key] > 0 for key in ("height", "width")):
            raise ValueError(
                f"{path}: image {image['id']}: height and width must be positive whole numbers"
            )
    for number, annotation in enumerate(content["annotations"]):
        for key in ("image_id", "category_id"):
            check_id(path, annotation, key, f"annotations[{number}]")
        if not _is_number(annotation["area"]):
            raise ValueError(
                f"{path}: annotation {annotation['id']} has area {annotation['area']!r}, expected "
                "a number of pixels"
            )
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise ValueError(
                f"{path}: annotation {annotation['id']} has bbox {box}, expected [left, top, "
                "width, height] in pixels"
            )
        annotation.setdefault("iscrowd", 0)  # scoring looks for it
    return content


def without_mask(content: dict[str, Any]) -> list[int]:
    """Ids of annotations whose segmentation is absent or empty."""
    return [a["id"] for a in content["annotations"] if not a.get("segmentation")]


def _refuse_damaged(content: dict[str, Any], path: Path) -> None:
    """ValueError names the first annotation whose mask is damaged, as far as is seen at once."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        size = sizes.get(annotation["image_id"])  # an unknown image is said elsewhere
        fault = mask_fault(annotation["segmentation"], *size) if size else ""
        if fault:
            raise ValueError(f"{path}: the mask of annotation {annotation['id']} is {fault}")


def _places(root: Path, split: str) -> tuple[Path, Path]:
    """The annotations' file and the images' folder of a split."""
    require(root, LAYOUT)
    for full in (f"{split}2017", split):
        path = root / "annotations" / f"instances_{full}.json"
        if path.exists():
            return path, require(root / full, LAYOUT)
    raise unknown_split(root / "annotations", split, CocoInstances.splits_of(root), LAYOUT)


def _chosen(
    images: list[dict[str, Any]], ids: Sequence[int] | None, path: Path
) -> list[dict[str, Any]]:
    if ids is None:
        return images
    by_id = {int(image["id"]): image for image in images}
    unknown = [number for number in ids if number not in by_id]
    if unknown:
        raise ValueError(f"{path} has no image of id {unknown[:5]} ({len(unknown)} unknown)")
    return [by_id[number] for number in ids]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _check(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
        path = folder / "annotations" / f"instances_{name}.json"
        content = read_annotations(path, read_instances, report)
        if content is None:
            continue
        listed = [image["file_name"] for image in content["images"]]
        there = names_in(folder / name)
        report.splits.append(split_of(name, listed, there, official, folder / name))
        categories = len(content["categories"])
        if categories != 80:
            report.notes.append(f"{name}: {categories} categories, COCO has 80")
        bare = len(without_mask(content))
        if bare:
            report.notes.append(
                f"{name}: {bare:,} objects without a mask: usable for boxes (SSD) only"
            )
    if not report.splits and not report.missing:
        report.missing.append("annotations/instances_{train,val}2017.json")


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, ("coco",), ("annotations/*.json", "train2017", "val2017")),
    fill=_check,
)
