"""Test images with their ground truth and what probes say of them, for the eye and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from cliptex.datasets.coco import decode_mask
from cliptex.datasets.protocol import DenseDataset, DetectionDataset
from cliptex.files import file_name, load_json, locked_beside, write_atomic
from cliptex.labels.class_map import class_colours
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.boxes import Entries, coco_results, read_maps
from cliptex.probes.boxes import squashed as squashed_planes
from cliptex.probes.config import DetectionConfig
from cliptex.probes.features import encode
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.task import squashed

HEIGHT = 192
"""Pixels to which pictures are shrunk for the page."""
IMAGE, TRUTH = "image", "ground truth"
SHOWN_SCORE = 0.5
TINT = 0.5
Object = tuple[int, tuple[float, ...], np.ndarray | None]
"""Label from 1, box (left, top, right, bottom) in pixels, and mask (H, W) of 0 and 1, or None."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One probe on some test images of a data set, each picture (H, W, 3) uint8.

    `note` says what a reader of the pictures must know.
    """

    dataset: str
    probe: str
    indices: tuple[int, ...]
    images: tuple[np.ndarray, ...]
    ground_truths: tuple[np.ndarray, ...]
    predictions: tuple[np.ndarray, ...]
    note: str = ""

    def save(self, folder: Path) -> None:
        """`folder`/INDEX-{image,truth,prediction}.png."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {"image": self.images, "truth": self.ground_truths, "prediction": self.predictions}
        for kind, pictures in kinds.items():
            for index, picture in zip(self.indices, pictures, strict=True):
                Image.fromarray(picture).save(folder / f"{index:05d}-{kind}.png")


def picture_indices(count: int, wanted: int) -> tuple[int, ...]:
    """At most `wanted` evenly spaced ones of `count` test images."""
    return tuple(sorted({int(i) for i in np.linspace(0, count - 1, min(wanted, count))}))


def visualise(
    encoder: FrozenEncoder, outcomes: Sequence[ProbeOutcome], dataset: Any, count: int
) -> list[Drawn]:
    """Every kind of head on `count` images, by the first of its outcomes that has rows; nothing of
    classification."""
    heads: dict[str, ProbeOutcome] = {}
    for outcome in outcomes:
        if not outcome.error and (outcome.task is None or outcome.task.dense):
            heads.setdefault(outcome.key.head, outcome)
    indices = picture_indices(len(dataset), count)
    return [
        (_objects_drawn if outcome.task is None else _labels_drawn)(
            encoder, outcome, dataset, indices
        )
        for outcome in heads.values()
    ]


def predict_dense(
    encoder: FrozenEncoder, outcome: ProbeOutcome, images: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """A dense probe's labels of (H_i, W_i, 3) uint8 pictures, in the array form of its kind.

    Depth probes give relative disparity (larger is nearer), not aligned to anything.
    """
    config, task = outcome.config, outcome.task
    assert task is not None and task.label is not None  # of a dense probe
    head: Any = outcome.head
    labels = []
    for image in images:
        seen = [squashed(image, config.resolution)]
        maps = encode(encoder, seen, dense=True, precision=config.precision)
        with torch.no_grad():
            full = head.enlarge(head.predict(maps)[0], image.shape[:2])[0]
        labels.append(task.label.from_output(full.cpu().numpy()))
    return labels


def _labels_drawn(
    encoder: FrozenEncoder, outcome: ProbeOutcome, dataset: DenseDataset, indices: tuple[int, ...]
) -> Drawn:
    task = outcome.task
    assert task is not None and task.label is not None and task.truth is not None
    items = [dataset[index] for index in indices]
    labels = predict_dense(encoder, outcome, [item.image for item in items])
    return Drawn(
        dataset=dataset.name,
        probe=outcome.key.head,
        indices=indices,
        images=tuple(item.image for item in items),
        ground_truths=tuple(task.truth.draw_truth(item.target) for item in items),
        predictions=tuple(map(task.label.draw, labels)),
        note=task.truth.picture_note,
    )


def _objects_drawn(
    encoder: FrozenEncoder,
    outcome: ProbeOutcome,
    dataset: DetectionDataset,
    indices: tuple[int, ...],
) -> Drawn:
    """Objects with a score of a half or more."""
    config = outcome.config
    assert isinstance(config, DetectionConfig)
    items = [dataset.item(index, masks=config.masks) for index in indices]
    truths, predictions = [], []
    for item in items:
        masks = [None] * len(item.labels) if item.masks is None else list(item.masks)
        true = zip(item.labels.tolist(), map(tuple, item.boxes.tolist()), masks, strict=True)
        truths.append(draw_objects(item.image, true))
        seen = squashed_planes(item.image, config.resolution)[None]
        maps = read_maps(encoder, seen, config.precision)
        found = {k: x.cpu() for k, x in outcome.head.predict(maps)[0][0].items()}
        size = (item.image.shape[0], item.image.shape[1])
        entries = coco_results(found, size, config.resolution, dataset.category_ids)
        predictions.append(draw_objects(item.image, _objects(entries, dataset, item.image)))
    return Drawn(
        dataset=dataset.name,
        probe=outcome.key.head,
        indices=indices,
        images=tuple(item.image for item in items),
        ground_truths=tuple(truths),
        predictions=tuple(predictions),
        note=f"Objects with a score of at least {SHOWN_SCORE}; one colour per class.",
    )


def _objects(found: Entries, dataset: DetectionDataset, image: np.ndarray) -> list[Object]:
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


def add_to_panel(drawn: Drawn, folder: Path, model: str) -> Path:
    """Put `model`'s predictions beside those of others in `folder`/DATASET--PROBE.json.

    A column of the same model is replaced; a panel of other test images is begun anew. The report
    shows the panels of the folder `panels` that lies beside its results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_beside(folder / "panels"):  # another model's probe may add its column, too
        return _add(drawn, folder, model)


def _add(drawn: Drawn, folder: Path, model: str) -> Path:
    name = f"{drawn.dataset}--{drawn.probe}"
    path = folder / f"{file_name(name)}.json"
    columns = _columns(path, drawn)
    shown = {IMAGE: drawn.images, TRUTH: drawn.ground_truths, model: drawn.predictions}
    for number, (column, pictures) in enumerate(shown.items()):
        part = str(number) if number < 2 else model
        files = [f"{file_name(f'{name}-{index:05d}-{part}')}.png" for index in drawn.indices]
        for file, picture in zip(files, pictures, strict=True):
            _shrunk(picture).save(folder / file)
        columns[column] = files
    panel = {
        "title": f"{drawn.dataset}: {drawn.probe} probes on test images",
        "note": drawn.note,
        "indices": drawn.indices,
        "columns": list(columns),
        "rows": list(zip(*columns.values(), strict=True)),
    }
    write_atomic(path, (json.dumps(panel, indent=1) + "\n").encode())
    return path


def _columns(path: Path, drawn: Drawn) -> dict[str, list[str]]:
    """The columns that the panel has, where it shows the same test images."""
    if not path.exists():
        return {}
    panel = load_json(path)
    if tuple(panel["indices"]) != drawn.indices:
        return {}
    return {c: [row[i] for row in panel["rows"]] for i, c in enumerate(panel["columns"])}


def _shrunk(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    scale = min(1.0, HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)
