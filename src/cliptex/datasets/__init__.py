"""One reader per benchmark, each in its real layout on disk; all read lazily."""

from cliptex.datasets.ade20k import Ade20k
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.folders import ImageFolder
from cliptex.datasets.imagenet import FlatImageNet, imagenet_names
from cliptex.datasets.karpathy import Karpathy
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
