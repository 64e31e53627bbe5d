"""From heads to COCO's results: boxes and masks in pixels of the original pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cliptex.console import track
from cliptex.datasets.protocol import DetectionDataset
from cliptex.probes.detection.batches import squashed
from cliptex.probes.detection.config import DetectionProbe, Head
from cliptex.probes.detection.train import MapReader

Found = list[dict[str, Any]]
MASK_THRESHOLD = 0.5


@torch.no_grad()
def detect_all(
    reader: MapReader,
    heads: Sequence[Head],
    dataset: DetectionDataset,
    rows: Sequence[int],
    config: DetectionProbe,
    *,
    label: str,
) -> list[Found]:
    """Every head's results on the pictures at `rows`, from one encoder pass per picture."""
    found: list[Found] = [[] for _ in heads]
    starts = range(0, len(rows), config.evaluation_batch)
    for start in track(starts, label=label):
        chunk = rows[start : start + config.evaluation_batch]
        pictures = [dataset.item(index, masks=False).image for index in chunk]
        maps = reader.read(torch.stack([squashed(p, config.size) for p in pictures]))
        for results, head in zip(found, heads, strict=True):
            outputs = head.detect(maps, (config.size, config.size))
            for index, picture, output in zip(chunk, pictures, outputs, strict=True):
                one = {key: value.cpu() for key, value in output.items()}
                shape = picture.shape[0], picture.shape[1]
                entries = coco_results(one, shape, config.size, dataset.category_ids)
                image_id = dataset.image_ids[index]
                results += [{"image_id": image_id, **entry} for entry in entries]
    return found


def coco_results(
    output: dict[str, Tensor], shape: tuple[int, int], side: int, category_ids: Sequence[int]
) -> Found:
    """One picture's detections, from pixels of the squashed square to those of the original.

    Args:
        output: `boxes` (n, 4), `labels`, `scores` (n,), perhaps `masks` (n, 1, m, m) of the boxes.
        shape: height and width of the original.
        side: of the square.
        category_ids: of labels 1, 2, ...
    """
    height, width = shape
    boxes = output["boxes"] * torch.tensor([width, height, width, height]) / side
    codes = _codes(output["masks"], boxes, shape) if "masks" in output else None
    left, top, right, bottom = boxes.unbind(1)
    corners = torch.stack([left, top, right - left, bottom - top], 1).tolist()
    entries: Found = []
    for i, (label, score) in enumerate(
        zip(output["labels"].tolist(), output["scores"].tolist(), strict=True)
    ):
        entry = {"category_id": category_ids[label - 1], "bbox": corners[i], "score": score}
        entries.append(entry if codes is None else {**entry, "segmentation": codes[i]})
    return entries


def _codes(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Run-length codes of soft masks of boxes, pasted into the picture and cut at a half."""
    from faster_coco_eval.core import mask as codes

    if not len(masks):
        return []
    pasted = paste_masks_in_image(masks, boxes, shape)[:, 0] > MASK_THRESHOLD  # (n, H, W)
    planes = pasted.numpy().astype(np.uint8).transpose(1, 2, 0)  # (H, W, n)
    found: Any = codes.encode(np.asfortranarray(planes))  # of a stack of planes: a list
    return found
