"""COCO instances: boxes, masks and crowds of one split in the original layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.coco_objects import CocoObjects, mask_fault
from cliptex.datasets.protocol import (
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
                "need polygons or a run-length code in each (SSD, --probe ssd, needs none)"
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
                f"{path}: image {image['id']}: height and width must be whole pixels, not 0"
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
