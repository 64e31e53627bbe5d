"""Objects drawn over their pictures: true ones, and those that a probe found."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

from cliptex.datasets.coco import decode_mask
from cliptex.datasets.protocol import DetectionDataset
from cliptex.labels.class_map import class_colours
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.detection.config import DetectionProbe
from cliptex.probes.detection.predict import Found, detect_all
from cliptex.probes.detection.run import DetectionOutcome
from cliptex.probes.detection.train import MapReader
from cliptex.probes.pictures import Drawn, picture_indices

SHOWN_SCORE = 0.5
TINT = 0.5
Object = tuple[int, tuple[float, ...], np.ndarray | None]
"""Label from 1, box (left, top, right, bottom) in pixels, and mask (H, W) of 0 and 1, or None."""


def draw_detections(
    encoder: FrozenEncoder,
    outcome: DetectionOutcome,
    dataset: DetectionDataset,
    config: DetectionProbe,
    count: int,
) -> Drawn:
    """The head of the first seed on `count` images: objects with a score of a half or more."""
    indices = picture_indices(len(dataset), count)
    items = [dataset.item(index, masks=config.masks) for index in indices]
    seed = min(outcome.heads)
    reader = MapReader(encoder, config.precision)
    label = f"{config.name} on {dataset.name}, pictures"
    (found,) = detect_all(reader, [outcome.heads[seed]], dataset, indices, config, label=label)
    truths, predictions = [], []
    for index, item in zip(indices, items, strict=True):
        masks = [None] * len(item.labels) if item.masks is None else list(item.masks)
        true = zip(item.labels.tolist(), map(tuple, item.boxes.tolist()), masks, strict=True)
        truths.append(draw_objects(item.image, true))
        mine = [entry for entry in found if entry["image_id"] == dataset.image_ids[index]]
        predictions.append(draw_objects(item.image, _objects(mine, dataset, item.image)))
    return Drawn(
        dataset=dataset.name,
        probe=config.name,
        indices=indices,
        images=tuple(item.image for item in items),
        truths=tuple(truths),
        predictions=tuple(predictions),
        note=f"Objects with a score of at least {SHOWN_SCORE}; one colour per class.",
    )


def _objects(found: Found, dataset: DetectionDataset, image: np.ndarray) -> list[Object]:
    """What a head found of one image, the surest last, so that it lies on top."""
    objects: list[Object] = []
    for entry in sorted(found, key=lambda entry: entry["score"]):
        if entry["score"] >= SHOWN_SCORE:
            left, top, width, height = entry["bbox"]
            mask = None
            if "segmentation" in entry:
                mask = decode_mask(entry["segmentation"], image.shape[0], image.shape[1])
            label = dataset.category_ids.index(entry["category_id"]) + 1
            objects.append((label, (left, top, left + width, top + height), mask))
    return objects


def draw_objects(image: np.ndarray, objects: Iterable[Object]) -> np.ndarray:
    """Boxes, and masks as a tint, in the colours of their classes over (H, W, 3) uint8."""
    colours = class_colours(255)
    kept = list(objects)
    drawn = image.astype(np.float32)
    for label, _, mask in kept:
        if mask is not None:
            inside = mask.astype(bool)
            drawn[inside] = (1 - TINT) * drawn[inside] + TINT * colours[label]
    picture = Image.fromarray(drawn.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(image.shape[:2]) / 200))
    for label, (left, top, right, bottom), _ in kept:
        colour = tuple(colours[label].tolist())
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), None, colour, line)
    return np.array(picture)
