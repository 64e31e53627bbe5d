"""What detection probes cost, on COCO or another data set, counted on one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cliptex.models.config import MaskRcnnForm
from cliptex.models.detection.ssd import SsdHead
from cliptex.models.encoder import FrozenEncoder
from cliptex.models.flops import count_flops, count_training_flops
from cliptex.probes.boxes import build_detector
from cliptex.probes.config import DetectionConfig
from cliptex.probes.cost import Cost, Part, encoder_pass
from cliptex.probes.method import held_count

FLOPS_PER_VALUE = 500  # of the heads, per stored activation


@dataclass(frozen=True)
class Pictures:
    """How many pictures a data set trains and tests on, and its classes with the background.

    val: pictures of the split that several rates are compared on; None where it is a part of train.
    """

    name: str
    train: int
    test: int
    classes: int
    val: int | None = None

    def split(self, probe: DetectionConfig) -> tuple[int, int]:
        """How many are learnt from, and how many several rates are compared on."""
        if len(probe.rates) == 1:
            return self.train, 0
        if self.val is not None:
            return self.train, self.val
        held = held_count(self.train, probe.holdout)
        return self.train - held, held


COCO = Pictures("coco", 117_266, 5_000, 81)
"""COCO 2017: annotated pictures of train; all of val."""


def detection_cost(probe: DetectionConfig, encoder: FrozenEncoder, data: Pictures = COCO) -> Cost:
    """The cost on `data`, with training counted at the median of its sizes.

    Several rates are compared on pictures that are counted with those of test. Memory: encoder,
    heads with gradients and AdamW's moments, and a batch's activations as one picture's arithmetic
    would fill them at one value per 500 FLOPs.
    """
    sides = sorted(probe.sides)
    middle = sides[len(sides) // 2]
    passes, features = encoder_pass(encoder, middle)
    looks, seen_again = encoder_pass(encoder, probe.resolution)
    channels = {stride: x.shape[1] for stride, x in features.maps.items()}
    with torch.random.fork_rng([]):
        head = build_detector(probe, channels, data.classes).to("meta")
    learning = Products(probe, head, middle, train=True)
    forward, both = (
        count_flops(learning, features.maps)[0],
        count_training_flops(learning, features.maps),
    )
    found = count_flops(Products(probe, head, probe.resolution, train=False), seen_again.maps)[0]
    kept, compared = data.split(probe)
    batch = max(1, min(probe.batch_size, kept))
    steps, seeds = probe.epochs * (kept // batch), len(probe.seeds)
    seen, trained = steps * batch, len(probe.rates) * seeds
    memory = 4.0 * sum(p.numel() for p in encoder.encoder.parameters())
    memory += trained * 16.0 * sum(p.numel() for p in head.parameters())
    scoring = (compared * trained + data.test * seeds) * found
    return Cost(
        task="detection",
        dataset=data.name,
        images=(data.train, probe.epochs, data.test),
        steps=steps,
        memory=memory + 4.0 * batch * forward / FLOPS_PER_VALUE,
        parts=(
            Part("encoder", 0, seen * passes + (compared + data.test) * looks, probe.precision),
            Part(probe.name, trained, seen * trained * both + scoring, probe.head_precision),
        ),
    )


class Products(nn.Module):
    """The layers of a detection head, on the meta device, for one picture of `side` pixels.

    On as many boxes as it is given at most, without the search for boxes in between, which has no
    products and cannot run on the meta device. Gives the outputs of all layers.
    """

    def __init__(self, probe: DetectionConfig, head: nn.Module, side: int, *, train: bool) -> None:
        super().__init__()
        self.head, self.size = head, (side, side)
        self.boxes = self.masks = 0
        form = probe.head
        if isinstance(form, MaskRcnnForm):
            self.boxes = form.rois if train else form.test_proposals[1]
            self.masks = round(form.rois * form.roi_positive) if train else form.detections

    def forward(self, maps: dict[int, torch.Tensor]) -> list[torch.Tensor]:
        model: Any = self.head.model
        levels = model.backbone(maps, self.size)
        if isinstance(self.head, SsdHead):
            return list(model.head(levels).values())
        outputs = [x for level in model.rpn.head(list(levels.values())) for x in level]
        width = model.backbone.out_channels
        heads = model.roi_heads
        outputs += heads.box_predictor(heads.box_head(self._pooled(self.boxes, width, 7)))
        masks = heads.mask_head(self._pooled(self.masks, width, 14))
        return [*outputs, heads.mask_predictor(masks)]

    def _pooled(self, count: int, width: int, side: int) -> torch.Tensor:
        """What is cut out of the pyramid, to which the gradient goes on."""
        return torch.empty(count, width, side, side, device="meta", requires_grad=True)
