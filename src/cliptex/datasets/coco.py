"""COCO instances: boxes, masks and crowds of one split in the original layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.datasets.protocol import DetectionItem, read_image, read_json, refuse_missing, require

LAYOUT = """  coco/annotations/instances_SPLIT2017.json   (or instances_SPLIT.json)
  coco/SPLIT2017/000000000001.jpg   (or SPLIT/)"""
PARTS = ("images", "annotations", "categories")


class CocoInstances:
    """Pictures with the boxes and masks of their objects.

    Args:
        root: the folder that holds `annotations` and the images' folders.
        split: train or val (train2017 and val2017 are tried first), or another name.
        name: of the set in results.
        ids: only these images, by COCO's id, in this order.

    Raises:
        FileNotFoundError: shows the layout, or names images that the annotations list and the
            folder lacks.
        ValueError: for a file that is not COCO's, an unknown id, or an annotation of an unknown
            image or category.

    Category ids are sparse in COCO (1 to 90 for 80 classes): they become labels 1.. in rising
    order of the ids, as `classes` and `category_ids` list them.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        name: str = "coco",
        ids: Sequence[int] | None = None,
    ) -> None:
        self.name = name
        root = Path(root)
        path, self._folder = _places(root, split)
        content = read_json(path, LAYOUT, PARTS)
        categories = sorted(content["categories"], key=lambda c: c["id"])
        self.classes = tuple(str(c["name"]) for c in categories)
        self.category_ids = tuple(int(c["id"]) for c in categories)
        self._categories = categories
        self._images = _chosen(content["images"], ids, path)
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
    raise FileNotFoundError(f"{root}: no annotations of split {split!r}; expected:\n{LAYOUT}")


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


def _clipped(
    annotation: dict[str, Any], height: int, width: int
) -> tuple[float, float, float, float] | None:
    """The box inside the picture, None where less than a pixel of a side is left."""
    left, top, w, h = annotation["bbox"]
    right, bottom = min(left + w, width), min(top + h, height)
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right, bottom) if right - left >= 1 and bottom - top >= 1 else None
