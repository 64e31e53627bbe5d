"""Mask R-CNN over a feature pyramid: the authors' heads and values in torchvision's machinery.

Values are those of the authors' library (corenet, modeling/models/detection/mask_rcnn.py and
projects/catlip/object_detection/maskrcnn_vit_base.yaml); the losses are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from cliptex.models.detection.heads import ProposalHead, box_head, conv_stack, mask_predictor
from cliptex.models.detection.neck import EncoderPyramid

Targets = list[dict[str, Tensor]]


@dataclass(frozen=True)
class MaskRcnnForm:
    """Sizes, thresholds and sampling; the defaults are the authors'.

    width: channels of every level and convolution; hidden: of the box head; depth: convolutions
        of the box and of the mask head; proposal_depth: of the proposal head.
    anchor_scale, ratios: anchors have sides of `anchor_scale` times their level's stride (32 to
        512 pixels at strides 4 to 64).
    proposal_iou: anchors above the second overlap are positive, below the first negative. Equal
        values leave no anchor out; 0.7 is the default of the authors' command line.
    proposal_samples, rois: anchors and boxes per image in the loss, of which at most the shares
        `proposal_positive` and `roi_positive` are positive.
    train_proposals, test_proposals: kept (before, after) suppression at overlap `proposal_nms`.
    score_threshold, nms, detections: of the final boxes.
    """

    width: int = 256
    hidden: int = 1024
    depth: int = 4
    proposal_depth: int = 2
    anchor_scale: int = 8
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposal_iou: tuple[float, float] = (0.7, 0.7)
    proposal_samples: int = 256
    proposal_positive: float = 0.5
    proposal_nms: float = 0.7
    train_proposals: tuple[int, int] = (2000, 2000)
    test_proposals: tuple[int, int] = (1000, 1000)
    rois: int = 512
    roi_positive: float = 0.25
    roi_iou: float = 0.5
    score_threshold: float = 0.05
    nms: float = 0.5
    detections: int = 100


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
