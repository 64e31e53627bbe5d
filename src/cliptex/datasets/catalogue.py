"""Every data set that commands can be pointed at, by the name that commands call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cliptex.datasets.ade20k import Ade20k
from cliptex.datasets.captions import CocoCaptions
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.coco_voc import CocoAsVoc
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.geonet import GeoNetNormals
from cliptex.datasets.hub import HubAde20k, HubCaptioned, HubLabelled, HubVoc
from cliptex.datasets.imagenet import FlatImageNet
from cliptex.datasets.karpathy import Karpathy
from cliptex.datasets.normals import DsineNormals, NormalsFolder
from cliptex.datasets.nyu import NyuDepth
from cliptex.datasets.nyu_raw import NyuRaw
from cliptex.datasets.places import Places365
from cliptex.datasets.protocol import (
    CaptionedImages,
    DenseDataset,
    DetectionDataset,
    LabelledImages,
)
from cliptex.datasets.voc import VocSegmentation

DENSE: dict[str, Callable[[Path, str], DenseDataset]] = {
    "voc": VocSegmentation,
    "voc20": partial(VocSegmentation, background="ignore", name="voc20"),
    "coco-voc": CocoAsVoc,
    "ade20k": Ade20k,
    "nyu-depth": NyuDepth,
    "nyu-raw": NyuRaw,
    "nyu-normals": NormalsFolder,
    "dsine-normals": DsineNormals,
    "geonet-normals": GeoNetNormals,
    "hub-voc": HubVoc,
    "hub-ade20k": HubAde20k,
}
LABELLED: dict[str, Callable[[Path, str], LabelledImages]] = {
    "folder": ImageFolder,
    "imagenet-flat": FlatImageNet,
    "places365": Places365,
    "hub-classes": HubLabelled,
}
CAPTIONED: dict[str, Callable[[Path, str], CaptionedImages]] = {
    "coco-captions": CocoCaptions,
    "hub-captions": HubCaptioned,
}

# Other views of a benchmark's pictures: an expert that learnt from these learnt from it.
SAME_PICTURES = {
    "voc20": "voc",
    "coco-voc": "coco",
    "coco-captions": "coco",
    "nyu-raw": "nyu-depth",
    "dsine-normals": "nyu-normals",
    "geonet-normals": "nyu-normals",
}


def benchmark_of(name: str) -> str:
    """The benchmark whose pictures the set called `name` shows."""
    return SAME_PICTURES.get(name, name)


def open_dataset(
    kind: str, root: Path, split: str, images: Path | None = None
) -> DenseDataset | LabelledImages | CaptionedImages | DetectionDataset:
    """The set of `kind` at `root`; `images` is the folder of a Karpathy JSON's pictures."""
    if kind == "karpathy":
        return Karpathy(root, root.parent if images is None else images, split)
    if kind == "coco":
        return CocoInstances(root, split)
    return {**DENSE, **LABELLED, **CAPTIONED}[kind](root, split)
