"""What the paper's two detection probes cost on COCO, counted on one picture."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.cost import TRAINING, Cost, encoder_flops
from cliptex.probes.detection.config import DetectionProbe, paper_mask_rcnn, paper_ssd

TRAIN, TEST, CLASSES = 117_266, 5_000, 81  # COCO 2017: annotated pictures of train; all of val
BOXES = 128  # as many positive boxes as the mask head is ever given


def paper_detection_costs(encoder: FrozenEncoder) -> list[Cost]:
    """Mask R-CNN and SSD at Table 8's settings."""
    return [detection_cost(probe, encoder) for probe in (paper_mask_rcnn(), paper_ssd())]


def detection_cost(probe: DetectionProbe, encoder: FrozenEncoder) -> Cost:
    """The cost on COCO, with training counted at the median of its sizes.

    Sides are rounded to the encoder's stride. The heads' arithmetic is that of one forward pass
    with 128 boxes on maps of zeros; detection in evaluation is taken for as dear. Memory:
    encoder, head with gradients and AdamW's moments, and a batch's activations as one picture's
    arithmetic would fill them at one value per 500 FLOPs.
    """
    sides = sorted(probe.train_sizes or (probe.size,))
    epochs, batch = probe.schedule.epochs, probe.batch_size
    train, head_bytes, heads = _one_picture(probe, encoder, sides[len(sides) // 2])
    test, _, _ = _one_picture(probe, encoder, probe.size)
    per_training = train + (TRAINING - 1) * heads
    encoder_bytes = 4.0 * sum(p.numel() for p in encoder.encoder.parameters())
    return Cost(
        task="detection",
        dataset=f"coco {probe.name}",
        images=(TRAIN, epochs, TEST),
        heads=1,
        steps=epochs * (TRAIN // batch),
        flops=TRAIN * epochs * per_training + TEST * test,
        memory=encoder_bytes + head_bytes + 4.0 * batch * heads / 500,
    )


def _one_picture(
    probe: DetectionProbe, encoder: FrozenEncoder, side: int
) -> tuple[float, float, float]:
    """FLOPs of encoder and head, bytes of the head's training state, FLOPs of the head alone."""
    seen = max(1, round(side / encoder.stride)) * encoder.stride
    passes, (channels, height, width) = encoder_flops(encoder, seen, dense=True)
    pictures = 1 if probe.masks else 2  # SSD's BatchNorm needs two values per channel
    maps = {encoder.stride: torch.zeros(pictures, channels, height, width)}
    corners = torch.arange(BOXES).float()[:, None]  # (n, 1)
    boxes = torch.cat([corners, corners, corners + side / 3, corners + side / 3], dim=1)
    target = {
        "boxes": boxes.clamp(max=side),
        "labels": torch.ones(BOXES, dtype=torch.int64),
        "masks": torch.ones(BOXES, side, side, dtype=torch.uint8),
    }
    with torch.random.fork_rng([]), torch.no_grad():
        head = probe.build({encoder.stride: channels}, CLASSES).train()
        with FlopCounterMode(display=False) as counter:
            head.losses(maps, (side, side), [target] * pictures)
    flops = counter.get_total_flops() / pictures
    return passes + flops, 16.0 * sum(p.numel() for p in head.parameters()), flops
