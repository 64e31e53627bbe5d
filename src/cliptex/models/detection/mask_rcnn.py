"""Mask R-CNN over a feature pyramid: the authors' heads and values in torchvision's machinery.

Values are those of the authors' library (corenet, modeling/models/detection/mask_rcnn.py and
projects/catlip/object_detection/maskrcnn_vit_base.yaml); the losses are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from cliptex.models.config import MaskRcnnForm
from cliptex.models.corenet import Block, ConvBlock, OutputName, PositionTable, VitForm, patch_stem
from cliptex.models.detection.pyramid import (
    EncoderPyramid,
    PixelNorm,
    PyramidBackbone,
    SimplePyramid,
)


def conv_stack(width: int, depth: int) -> nn.Sequential:
    """`depth` times convolution, norm, ReLU: (B, width, h, w) -> (B, width, h, w)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        layers += [ConvBlock(conv), PixelNorm(width), nn.ReLU()]
    return nn.Sequential(*layers)


class ProposalHead(nn.Module):
    """Objectness and box offsets of `anchors` anchors per cell."""

    def __init__(self, width: int, anchors: int, depth: int = 2) -> None:
        super().__init__()
        self.conv = conv_stack(width, depth)
        self.cls_logits = ConvBlock(nn.Conv2d(width, anchors, 1))
        self.bbox_pred = ConvBlock(nn.Conv2d(width, 4 * anchors, 1))
        for block in (self.cls_logits, self.bbox_pred):  # as torchvision's: start near the anchors
            conv = block.get_submodule("block.conv")
            nn.init.normal_(conv.get_parameter("weight"), std=0.01)
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (B, C, h, w) -> logits (B, A, h, w) and offsets (B, 4A, h, w), a level each."""
        hidden = [self.conv(x) for x in maps]
        return [self.cls_logits(x) for x in hidden], [self.bbox_pred(x) for x in hidden]


def box_head(width: int, side: int, hidden: int, depth: int = 4) -> nn.Sequential:
    """(n, width, side, side) -> (n, hidden)."""
    stack = conv_stack(width, depth)
    return stack.extend([nn.Flatten(), nn.Linear(width * side * side, hidden), nn.ReLU()])


def mask_predictor(width: int, classes: int) -> nn.Sequential:
    """(n, width, s, s) -> mask logits (n, classes, 2s, 2s)."""
    return nn.Sequential(
        ConvBlock(nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)),
        PixelNorm(width),
        nn.ReLU(),
        ConvBlock(nn.Conv2d(width, classes, 1)),
    )


Targets = list[dict[str, Tensor]]


def build_mask_rcnn(
    backbone: nn.Module, strides: Sequence[int], classes: int, form: MaskRcnnForm
) -> MaskRCNN:
    """torchvision's Mask R-CNN; `backbone` gives {"stride": (B, width, h, w)}, finest first.

    All levels go to the proposals and to both heads. `classes` includes the background, class 0.
    """
    levels = [str(stride) for stride in strides]
    sides = tuple((form.anchor_scale * stride,) for stride in strides)
    return MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sides, (form.ratios,) * len(sides)),
        rpn_head=ProposalHead(form.width, len(form.ratios), form.proposal_depth),
        rpn_bg_iou_thresh=form.proposal_iou[0],
        rpn_fg_iou_thresh=form.proposal_iou[1],
        rpn_batch_size_per_image=form.proposal_samples,
        rpn_positive_fraction=form.proposal_positive,
        rpn_pre_nms_top_n_train=form.train_proposals[0],
        rpn_post_nms_top_n_train=form.train_proposals[1],
        rpn_pre_nms_top_n_test=form.test_proposals[0],
        rpn_post_nms_top_n_test=form.test_proposals[1],
        rpn_nms_thresh=form.proposal_nms,
        box_roi_pool=MultiScaleRoIAlign(levels, 7, 2),
        box_head=box_head(form.width, 7, form.hidden, form.depth),
        box_predictor=FastRCNNPredictor(form.hidden, classes),
        box_fg_iou_thresh=form.roi_iou,
        box_bg_iou_thresh=form.roi_iou,
        box_batch_size_per_image=form.rois,
        box_positive_fraction=form.roi_positive,
        box_score_thresh=form.score_threshold,
        box_nms_thresh=form.nms,
        box_detections_per_img=form.detections,
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 2),
        mask_head=conv_stack(form.width, form.depth),
        mask_predictor=mask_predictor(form.width, classes),
    )


class MaskRcnnHead(nn.Module):
    """Everything behind a frozen encoder: pyramid, proposals, boxes, masks.

    Args:
        channels: widths of the encoder's maps by stride (see `EncoderPyramid`).
        classes: number of classes with the background, which is class 0.
        form: sizes and thresholds.
    """

    def __init__(self, channels: Mapping[int, int], classes: int, form: MaskRcnnForm) -> None:
        super().__init__()
        neck = EncoderPyramid(channels, form.width)
        self.model = build_mask_rcnn(neck, neck.strides, classes, form)

    def losses(
        self, maps: Mapping[int, Tensor], size: tuple[int, int], targets: Targets
    ) -> dict[str, Tensor]:
        """torchvision's five losses, for training mode.

        Args:
            maps: {stride: (B, C, h, w)} of images of `size` (height, width) in pixels.
            targets: per image `boxes` (n, 4) float32 as left, top, right, bottom in pixels of
                `size`, `labels` (n,) int64 from 1, `masks` (n, height, width) uint8.
        """
        return self._run(maps, size, targets)[1]

    def detect(self, maps: Mapping[int, Tensor], size: tuple[int, int]) -> Targets:
        """Per image `boxes` (n, 4), `labels`, `scores` (n,), `masks` (n, 1, 28, 28) in [0, 1].

        For evaluation mode. Masks are of their box, not of the image.
        """
        return self._run(maps, size, None)[0]

    def _run(
        self, maps: Mapping[int, Tensor], size: tuple[int, int], targets: Targets | None
    ) -> tuple[Targets, dict[str, Tensor]]:
        features = self.model.backbone(maps, size)
        images = blank_images(next(iter(maps.values())), size)
        proposals, losses = self.model.rpn(images, features, targets)
        found, more = self.model.roi_heads(features, proposals, images.image_sizes, targets)
        return found, {**losses, **more}


def blank_images(like: Tensor, size: tuple[int, int]) -> ImageList:
    """What torchvision's anchors need of the images, their sizes, for a batch as long as `like`."""
    count = len(like)
    return ImageList(torch.empty(1, device=like.device).expand(count, 3, *size), [size] * count)


class PlainViT(nn.Module):
    """Images (B, 3, H, W), sides multiples of 32 -> {stride: map} at strides 4, 8, 16, 32."""

    def __init__(self, form: VitForm, output: OutputName = "out_proj_attn") -> None:
        super().__init__()
        self.patch_emb = patch_stem(form.width)
        self.post_transformer_norm = nn.LayerNorm(form.width, eps=form.eps)
        self.transformer = nn.Sequential(*(Block(form, output) for _ in range(form.layers)))
        self.pos_embed = PositionTable(form.positions, form.width)
        self.simple_fpn = SimplePyramid(form.width)
        self.channels = self.simple_fpn.channels

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """See the class; widths are `channels`."""
        return self.simple_fpn(self.encode(images))

    def encode(self, images: Tensor) -> Tensor:
        """The normed map at stride 16: (B, 3, H, W) -> (B, C, H / 16, W / 16)."""
        x = self.patch_emb(images)  # (B, C, h, w)
        size = (x.shape[-2], x.shape[-1])
        tokens = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        tokens = self.transformer(tokens + self.pos_embed(tokens.shape[1]))
        return self.post_transformer_norm(tokens).transpose(1, 2).unflatten(2, size)


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
