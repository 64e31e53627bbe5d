"""Squares and circles on grey, in memory, and an encoder that sees colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as codes
from torch import nn

from cliptex.datasets.protocol import DetectionItem
from cliptex.models.config import MaskRcnnForm, SsdForm
from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.probes.config import DetectionConfig, Schedule

SIDE = 64
COLOURS = ((230, 30, 30), (30, 30, 230))


@dataclass
class Shapes:
    """One or two coloured rectangles per picture, of 48 rows and 64 columns."""

    count: int
    seed: int
    name: str = "shapes"
    classes: tuple[str, ...] = ("red", "blue")
    category_ids: tuple[int, ...] = (4, 9)

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(100 + i for i in range(self.count))

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, *, masks: bool) -> DetectionItem:
        rng = np.random.default_rng([self.seed, index])
        image = np.full((48, SIDE, 3), 120, np.uint8)
        number = int(rng.integers(1, 3))
        boxes, labels = [], []
        planes = np.zeros((number, 48, SIDE), np.uint8)
        for k in range(number):
            w, h = rng.integers(14, 25, 2)
            left, top = int(rng.integers(32 - w)) + 32 * k, int(rng.integers(48 - h))
            label = int(rng.integers(2))
            image[top : top + h, left : left + w] = COLOURS[label]
            planes[k, top : top + h, left : left + w] = 1
            boxes.append([left, top, left + w, top + h])
            labels.append(label + 1)
        found = np.array(boxes, np.float32), np.array(labels, np.int64)
        return DetectionItem(image, *found, planes if masks else None)

    def with_objects(self) -> list[int]:
        return list(range(self.count))

    def ground_truth(self, indices: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        annotations: list[dict[str, Any]] = []
        for index in indices:
            item = self.item(index, masks=True)
            assert item.masks is not None
            for box, label, mask in zip(item.boxes, item.labels, item.masks, strict=True):
                left, top, right, bottom = box.tolist()
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": self.image_ids[index],
                        "category_id": self.category_ids[label - 1],
                        "bbox": [left, top, right - left, bottom - top],
                        "area": float(mask.sum()),
                        "segmentation": codes.encode(np.asfortranarray(mask)),
                        "iscrowd": 0,
                    }
                )
        images = [{"id": self.image_ids[i], "height": 48, "width": SIDE} for i in indices]
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}


class Colours(nn.Module):
    """Mean and corner colours of each cell, as one map; counts its calls outside of its state."""

    def __init__(self, stride: int = 16, channels: int = 16) -> None:
        super().__init__()
        self.stride, self.channels, self.calls = stride, channels, 0
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, channels, stride, stride=stride)

    def forward(self, images: torch.Tensor) -> Features:
        self.calls += 1
        maps = self.mix(images - 0.5)
        pooled = maps.mean((2, 3))
        return Features(pooled, pooled, {self.stride: maps})


TINY_RCNN = MaskRcnnForm(
    width=16,
    hidden=32,
    depth=1,
    proposal_depth=1,
    anchor_scale=3,
    proposal_samples=32,
    train_proposals=(60, 30),
    test_proposals=(30, 10),
    rois=16,
    detections=5,
)
TINY_SSD = SsdForm(
    strides=(16, 32, -1), widths=(16, 16, 16), ratios=((2,), (2,), (2,)), detections=10
)


@pytest.fixture
def shapes() -> type[Shapes]:
    return Shapes


@pytest.fixture
def encoder() -> FrozenEncoder:
    return FrozenEncoder(Colours())


@pytest.fixture
def probe():
    """`probe(kind, **changes)` is a tiny recipe of three steps an epoch on twelve pictures."""

    def make(kind: str, epochs: int = 1, **changes) -> DetectionConfig:
        base: dict[str, Any] = {
            "head": TINY_RCNN if kind == "mask_rcnn" else TINY_SSD,
            "schedule": Schedule(lr=3e-3, warmup_steps=2, warmup_init_lr=1e-4),
            "epochs": epochs,
            "resolution": SIDE,
            "batch_size": 4,
            "augment": "flip",
            "weight_decay": 0.01,
            "decay_biases": False,
        }
        return DetectionConfig(**{**base, **changes})

    return make
