"""Every data set that commands can be pointed at, by the name that commands call it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cliptex.datasets import captions, coco, folders, hub, voc
from cliptex.datasets.ade20k import Ade20k
from cliptex.datasets.captions import CocoCaptions
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.coco_voc import CocoAsVoc
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.geonet import GeoNetNormals
from cliptex.datasets.hub import HubAde20k, HubCaptioned, HubLabelled, HubVoc
from cliptex.datasets.hub_coco import HubCoco
from cliptex.datasets.hub_nyu import HubNyuDepth, HubNyuNormals
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
    "hub-nyu-depth": HubNyuDepth,
    "hub-nyu-normals": HubNyuNormals,
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

# The benchmark whose pictures a layout holds: an expert that learnt from it learnt from these.
BENCHMARKS = {
    "voc": "voc",
    "voc20": "voc",
    "hub-voc": "voc",
    "ade20k": "ade20k",
    "hub-ade20k": "ade20k",
    "coco": "coco",
    "hub-coco": "coco",
    "coco-voc": "coco",
    "coco-captions": "coco",
    "nyu-depth": "nyu-depth",
    "nyu-raw": "nyu-depth",
    "hub-nyu-depth": "nyu-depth",
    "nyu-normals": "nyu-normals",
    "dsine-normals": "nyu-normals",
    "geonet-normals": "nyu-normals",
    "hub-nyu-normals": "nyu-normals",
    "imagenet-flat": "imagenet",
    "places365": "places365",
}

# Layouts that any set may come in are told by the set's name: of its folder, JSON or repository.
BY_NAME = {"folder", "karpathy", "hub-classes", "hub-captions"}
KNOWN_AS = {  # ImageNet-V2, -A, -O, -R and -Sketch have other pictures
    "imagenet": r"ilsvrc|imagenette|imagewoof|imagenet(?!-?(v2|a|o|r|sketch)\b)",
    "places365": r"places-?365",
    "flickr30k": r"flickr-?30k",
    "flickr8k": r"flickr-?8k",
    "coco": r"\b(ms-?)?coco(\b|-?20\d\d)",
    "voc": r"pascal-?voc|\bvoc-?20\d\d",
    "ade20k": r"ade-?20k|scene-?parse-?150",
}


# The splits that are usually learnt from, and scored; of several names the first that is there.
TRAIN_VAL = (("train",), ("val",))
TRAIN_TEST = (("train",), ("test",))
VOC_LISTS = (("train_aug", "train"), ("val", "test"))  # the paper's 10,582, where SBD is there
COCO_FILES = (("train",), ("val", "test"))
HUB_NYU = (("train",), ("val", "test"))  # tanganke/nyuv2 calls the 654 test pictures val
USUAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "voc": VOC_LISTS,
    "voc20": VOC_LISTS,
    "coco-voc": COCO_FILES,
    "ade20k": (("training",), ("validation",)),
    "nyu-depth": TRAIN_TEST,
    "nyu-raw": TRAIN_TEST,
    "nyu-normals": TRAIN_TEST,
    "dsine-normals": TRAIN_TEST,
    "geonet-normals": TRAIN_TEST,
    "hub-voc": TRAIN_VAL,
    "hub-ade20k": (("train",), ("validation",)),
    "hub-nyu-depth": HUB_NYU,
    "hub-nyu-normals": HUB_NYU,
    "folder": (("train",), ("test", "val")),
    "imagenet-flat": TRAIN_VAL,
    "places365": TRAIN_VAL,
    "hub-classes": (("train",), ("validation", "val", "test")),  # tests often lack answers
    "coco": COCO_FILES,
    "hub-coco": COCO_FILES,
    "karpathy": TRAIN_TEST,
    "coco-captions": COCO_FILES,
    "hub-captions": TRAIN_TEST,
}
SPLITS_OF: dict[str, Callable[[Path], list[str]]] = {
    "voc": voc.splits_of,
    "voc20": voc.splits_of,
    "coco-voc": coco.splits_of,
    "folder": folders.splits_of,
    "coco": coco.splits_of,
    "coco-captions": captions.splits_of,
    "hub-classes": hub.splits_of,
    "hub-nyu-depth": hub.splits_of,
    "hub-nyu-normals": hub.splits_of,
    "hub-coco": hub.splits_of,
}


def usual_splits(kind: str, root: Path) -> tuple[str, str]:
    """The split to learn from and the one to score, of a set of layout `kind` at `root`."""
    train, test = USUAL[kind]
    there = SPLITS_OF[kind](root) if kind in SPLITS_OF else []
    return _first(train, there), _first(test, there)


def _first(names: Sequence[str], there: Sequence[str]) -> str:
    return next((name for name in names if name in there), names[0])


def benchmark_of(layout: str, name: str) -> str:
    """The benchmark whose pictures a set of `layout` called `name` shows; `name` if unknown."""
    if layout in BENCHMARKS:
        return BENCHMARKS[layout]
    words = name.lower().replace("_", "-")
    return next((known for known, sign in KNOWN_AS.items() if re.search(sign, words)), name)


def open_dataset(
    kind: str, root: Path, split: str, images: Path | None = None
) -> DenseDataset | LabelledImages | CaptionedImages | DetectionDataset:
    """The set of `kind` at `root`; `images` is the folder of a Karpathy JSON's pictures.

    None looks for it beside the JSON. ValueError where another kind is given one.
    """
    if kind == "karpathy":
        return Karpathy(root, images, split)
    if images is not None:
        raise ValueError(f"--images: it is for karpathy alone, and this is {kind}; leave it out")
    if kind == "coco":
        return CocoInstances(root, split, masks=False)
    if kind == "hub-coco":
        return HubCoco(root, split)
    return {**DENSE, **LABELLED, **CAPTIONED}[kind](root, split)
