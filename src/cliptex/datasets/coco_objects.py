"""Objects of pictures as COCO lists them, whatever file they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np

from cliptex.datasets.protocol import DetectionItem

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
