"""Layouts of data sets that `cliptex probe` reads, and which task and heads each has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cliptex.datasets.protocol import DetectionDataset

Layout = Literal[
    "voc",
    "voc20",
    "coco-voc",
    "ade20k",
    "hub-voc",
    "hub-ade20k",
    "hub-nyu-depth",
    "hub-nyu-normals",
    "nyu-depth",
    "nyu-raw",
    "nyu-normals",
    "dsine-normals",
    "geonet-normals",
    "folder",
    "imagenet-flat",
    "places365",
    "hub-classes",
    "coco",
    "hub-coco",
]
Head = Literal["linear", "deeplabv3", "pspnet", "mask-rcnn", "ssd"]
Task = Literal["segmentation", "depth", "normals", "classification", "detection"]
DETECTORS = {"mask-rcnn", "ssd"}
TASK_OF: dict[Layout, Task] = {
    "voc": "segmentation",
    "voc20": "segmentation",
    "coco-voc": "segmentation",
    "ade20k": "segmentation",
    "hub-voc": "segmentation",
    "hub-ade20k": "segmentation",
    "hub-nyu-depth": "depth",
    "hub-nyu-normals": "normals",
    "nyu-depth": "depth",
    "nyu-raw": "depth",
    "nyu-normals": "normals",
    "dsine-normals": "normals",
    "geonet-normals": "normals",
    "folder": "classification",
    "imagenet-flat": "classification",
    "places365": "classification",
    "hub-classes": "classification",
    "coco": "detection",
    "hub-coco": "detection",
}


def read_objects(
    dataset: Layout, root: Path, split: str, heads: tuple[Head, ...]
) -> DetectionDataset:
    """Pictures with objects for `heads` (all of them where none is named).

    ValueError for a set of boxes alone, unless they are for SSD alone.
    """
    from cliptex.datasets.coco import CocoInstances
    from cliptex.datasets.hub_coco import HubCoco

    masks = heads != ("ssd",)
    if dataset == "coco":
        return CocoInstances(root, split, masks=masks)
    if masks:
        raise ValueError(
            f"--probe: {dataset} has boxes without masks, which mask-rcnn learns from; add --probe "
            "ssd, or take COCO's own files (--dataset coco)"
        )
    return HubCoco(root, split)
