"""One reader per benchmark, each in its real layout on disk; all read lazily.

`cliptex.datasets.catalogue` lists the layouts. Readers are imported when they are asked for, so
that the list costs no more than itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliptex.datasets.ade20k import Ade20k
    from cliptex.datasets.captions import Karpathy
    from cliptex.datasets.coco import CocoInstances
    from cliptex.datasets.folders import ImageFolder
    from cliptex.datasets.imagenet import FlatImageNet, imagenet_names
    from cliptex.datasets.normals import NormalsFolder
    from cliptex.datasets.nyu import NyuDepth
    from cliptex.datasets.protocol import CaptionedImages, DenseDataset, DenseItem, LabelledImages
    from cliptex.datasets.voc import VOC_CLASSES, VocSegmentation

__all__ = [
    "VOC_CLASSES",
    "Ade20k",
    "CaptionedImages",
    "CocoInstances",
    "DenseDataset",
    "DenseItem",
    "FlatImageNet",
    "ImageFolder",
    "Karpathy",
    "LabelledImages",
    "NormalsFolder",
    "NyuDepth",
    "VocSegmentation",
    "imagenet_names",
]
_MODULES = {
    "ade20k": ("Ade20k",),
    "captions": ("Karpathy",),
    "coco": ("CocoInstances",),
    "folders": ("ImageFolder",),
    "imagenet": ("FlatImageNet", "imagenet_names"),
    "normals": ("NormalsFolder",),
    "nyu": ("NyuDepth",),
    "protocol": ("CaptionedImages", "DenseDataset", "DenseItem", "LabelledImages"),
    "voc": ("VOC_CLASSES", "VocSegmentation"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
