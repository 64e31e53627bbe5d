"""One reader per benchmark, each in its real layout on disk; all read lazily."""

from cliptex.datasets.ade20k import Ade20k
from cliptex.datasets.folders import IMAGENETTE_NAMES, ImageFolder
from cliptex.datasets.karpathy import Karpathy
from cliptex.datasets.normals import NormalsFolder
from cliptex.datasets.nyu import NyuDepth
from cliptex.datasets.protocol import CaptionedImages, DenseDataset, DenseItem, LabelledImages
from cliptex.datasets.voc import VOC_CLASSES, VocSegmentation

__all__ = [
    "IMAGENETTE_NAMES",
    "VOC_CLASSES",
    "Ade20k",
    "CaptionedImages",
    "DenseDataset",
    "DenseItem",
    "ImageFolder",
    "Karpathy",
    "LabelledImages",
    "NormalsFolder",
    "NyuDepth",
    "VocSegmentation",
]
