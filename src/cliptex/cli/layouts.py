"""Layouts of data sets that `cliptex probe` reads, and which task and heads each has."""

from __future__ import annotations

from typing import Literal

Layout = Literal[
    "voc",
    "voc20",
    "coco-voc",
    "ade20k",
    "hub-voc",
    "hub-ade20k",
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
}
