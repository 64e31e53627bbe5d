"""COCO instances: boxes, masks and crowds of one split in the original layout."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.protocol import (
    DetectionItem,
    check_entries,
    read_image,
    read_json,
    refuse_empty,
    refuse_missing,
    require,
    unknown_split,
)

LAYOUT = """  coco/annotations/instances_SPLIT2017.json   (or instances_SPLIT.json)
  coco/SPLIT2017/000000000001.jpg   (or SPLIT/)"""
PARTS: dict[str, tuple[str, ...]] = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


class CocoInstances:
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
            image or category, or without a key that is needed.

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
                "need polygons or a run-length code in each (SSD, --probe ssd, needs none)"
            )
        self._has_masks = masks
        categories = sorted(content["categories"], key=lambda c: c["id"])
        self.classes = tuple(str(c["name"]) for c in categories)
        self.category_ids = tuple(int(c["id"]) for c in categories)
        self._categories = categories
        self._images = _chosen(content["images"], ids, path)
        refuse_empty(self._images, path)
        self.image_ids = tuple(int(image["id"]) for image in self._images)
        files = [str(image["file_name"]) for image in self._images]
        refuse_missing(
            self._folder, files, path, "complete the download, or pass `ids` of a subset"
        )
        self.pictures = [str(self._folder / file) for file in files]
        known = {int(image["id"]) for image in content["images"]}
        self._objects = _objects(content["annotations"], known, set(self.category_ids), path)
        self._labels = {number: k for k, number in enumerate(self.category_ids, start=1)}

    def __len__(self) -> int:
        return len(self._images)

    def item(self, index: int, *, masks: bool) -> DetectionItem:
        """The picture at `index` with its objects; ValueError where its size is not as listed."""
        about = self._images[index]
        path = self._folder / about["file_name"]
        image = read_image(path, upright=False)
        height, width = about["height"], about["width"]
        if image.shape[:2] != (height, width):
            raise ValueError(
                f"{path} has {image.shape[0]}x{image.shape[1]} pixels, its annotations are for "
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
                plane[:] = decode_mask(annotation["segmentation"], height, width)
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


def read_instances(path: Path) -> dict[str, Any]:
    """The JSON of a split; ValueError names an entry of it without a key that is needed."""
    content = read_json(path, LAYOUT, list(PARTS))
    for part, keys in PARTS.items():
        check_entries(path, content[part], part, keys)
    for image in content["images"]:
        if not all(isinstance(image[key], int) and image[key] > 0 for key in ("height", "width")):
            raise ValueError(f"{path}: image {image['id']}: height and width must be pixels, not 0")
    for annotation in content["annotations"]:
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


def splits_of(root: Path) -> list[str]:
    """The splits that have annotations, by their short names."""
    paths = root.glob("annotations/instances_*.json")
    return sorted(path.stem.removeprefix("instances_").removesuffix("2017") for path in paths)


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


def _places(root: Path, split: str) -> tuple[Path, Path]:
    """The annotations' file and the images' folder of a split."""
    require(root, LAYOUT)
    for full in (f"{split}2017", split):
        path = root / "annotations" / f"instances_{full}.json"
        if path.exists():
            return path, require(root / full, LAYOUT)
    raise unknown_split(root / "annotations", split, splits_of(root), LAYOUT)


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


def _objects(
    annotations: list[dict[str, Any]], images: set[int], categories: set[int], path: Path
) -> defaultdict[int, list[dict[str, Any]]]:
    """Annotations by image id."""
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        for key, known in (("image_id", images), ("category_id", categories)):
            if annotation[key] not in known:
                raise ValueError(
                    f"{path}: annotation {annotation['id']} has {key} {annotation[key]}, "
                    "which the file does not list"
                )
        found[int(annotation["image_id"])].append(annotation)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _clipped(
    annotation: dict[str, Any], height: int, width: int
) -> tuple[float, float, float, float] | None:
    """The box inside the picture, None where less than a pixel of a side is left."""
    left, top, w, h = annotation["bbox"]
    right, bottom = min(left + w, width), min(top + h, height)
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None
