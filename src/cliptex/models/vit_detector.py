"""The CLIPTeX authors' public Mask R-CNN: plain ViT, simple pyramid, torchvision's machinery."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from cliptex.models.detection.mask_rcnn import MaskRcnnForm, build_mask_rcnn
from cliptex.models.detection.plain_vit import PlainViT, VitForm
from cliptex.models.simple_pyramid import PyramidBackbone

MULTIPLE = 32
"""Sides of images must be multiples of it."""


@dataclass(frozen=True)
class DetectorForm:
    """Sizes and thresholds; the defaults are the released ViT-B detector's.

    width: channels of every map and convolution behind the ViT; hidden: of the box head.
    score_threshold: detections at or below it are dropped before suppression.
    """

    vit: VitForm = field(default_factory=VitForm)
    classes: int = 81
    width: int = 256
    hidden: int = 1024
    score_threshold: float = 0.05
    detections: int = 100


class Unscaled(GeneralizedRCNNTransform):
    """Batches images as they come: the size is the caller's choice, and so are mean and scale."""

    def __init__(self) -> None:
        super().__init__(
            min_size=1,
            max_size=1,
            image_mean=[0.0] * 3,
            image_std=[1.0] * 3,
            size_divisible=MULTIPLE,
        )

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Image and target unchanged."""
        return image, target


class VitMaskRCNN(nn.Module):
    """torchvision's Mask R-CNN under the name `model`, as in the authors' checkpoints."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """As torchvision's: images (3, H, W) in [0, 1] -> boxes, labels, scores, soft masks.

        With targets, while training, the losses.
        """
        return self.model(images, targets)


def build_vit_maskrcnn(form: DetectorForm = DetectorForm()) -> VitMaskRCNN:
    """The untrained detector. All five levels go to the proposals and to both heads."""
    vit = PlainViT(form.vit)
    backbone = PyramidBackbone(vit, vit.channels, form.width)
    heads = MaskRcnnForm(
        width=form.width,
        hidden=form.hidden,
        score_threshold=form.score_threshold,
        detections=form.detections,
    )
    model = build_mask_rcnn(backbone, (4, 8, 16, 32, 64), form.classes, heads)
    model.transform = Unscaled()
    return VitMaskRCNN(model)
