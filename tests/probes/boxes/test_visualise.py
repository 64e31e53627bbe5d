"""What is drawn of true and found objects."""

from typing import Any

import numpy as np
import torch

from cliptex.labels.class_map import class_colours
from cliptex.probes import ProbeOutcome
from cliptex.probes.method import HeadKey
from cliptex.probes.visualise import draw_objects, visualise

RED = class_colours(255)[1].tolist()


class Oracle:
    """A head that finds the true objects of a set, read in order, and an unsure one everywhere."""

    def __init__(self, dataset, indices) -> None:
        self._items = iter([dataset.item(index, masks=True) for index in indices])

    keys, diverged = (HeadKey("mask_rcnn", 0.1, 0),), False

    def pick(self, key):
        return self

    def predict(self, maps) -> list[list[dict[str, Any]]]:
        size = (64, 64)
        outputs = []
        for _ in range(len(next(iter(maps.values())))):
            item = next(self._items)
            height, width = item.image.shape[:2]
            scale = torch.tensor([size[1] / width, size[0] / height] * 2)
            boxes = torch.cat([torch.from_numpy(item.boxes), torch.tensor([[0.0, 0, 64, 48]])])
            masks = torch.ones(len(boxes), 1, 28, 28)
            labels = torch.cat([torch.from_numpy(item.labels), torch.tensor([1])])
            scores = torch.tensor([0.9] * len(item.labels) + [0.4])
            found = {"boxes": boxes * scale, "labels": labels, "scores": scores, "masks": masks}
            outputs.append(found)
        return [outputs]


def test_draw_detections__what_is_found_looks_like_the_truth(encoder, shapes, probe):
    data = shapes(9, 0)
    head = Oracle(data, (0, 4, 8))
    told = {"results": [], "per_image": {}, "config": probe("mask_rcnn")}
    outcome = ProbeOutcome(key=head.keys[0], head=head, **told)
    (drawn,) = visualise(encoder, [outcome], data, 3)
    assert drawn.indices == (0, 4, 8) and drawn.probe == "mask_rcnn" and "0.5" in drawn.note
    for image, truth, prediction in zip(
        drawn.images, drawn.ground_truths, drawn.predictions, strict=True
    ):
        assert not np.array_equal(image, truth)
        assert (truth == prediction).all(-1).mean() > 0.97  # masks are pasted to the pixel or so


def test_draw_objects__box_and_tint_by_hand():
    image = np.zeros((6, 6, 3), np.uint8)
    mask = np.zeros((6, 6), np.uint8)
    mask[2:4, 2:4] = 1
    drawn = draw_objects(image, [(1, (1.0, 1.0, 5.0, 5.0), mask)])
    assert drawn[1, 1].tolist() == drawn[4, 4].tolist() == RED
    assert drawn[2, 2].tolist() == [value // 2 for value in RED]
    assert drawn[0, 0].tolist() == drawn[5, 5].tolist() == [0, 0, 0]
    assert not image.any(), "the picture itself is left alone"


def test_draw_objects__boxes_alone():
    image = np.full((4, 4, 3), 7, np.uint8)
    assert draw_objects(image, [(1, (0.0, 0.0, 4.0, 4.0), None)])[1, 1].tolist() == [7, 7, 7]
