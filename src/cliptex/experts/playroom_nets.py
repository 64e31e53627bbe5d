"""Small networks of the playroom's experts: an instance detector and two dense regressors.

They stand in for the paper's Mask R-CNN, DPT and NLL-AngMF (Section 4.1) in the embedded world,
and are small enough (together about two million parameters) to be shipped and to run on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

ENCODER_WIDTHS = (24, 40, 64, 96)
"""Channels at strides 2, 4, 8 and 16."""

FPN_CHANNELS = 64
PROPOSALS = 100


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class ConvEncoder(nn.Module):
    """Plain convolutional encoder; returns maps at strides 2, 4, 8, 16, finest first."""

    def __init__(self, widths: tuple[int, ...] = ENCODER_WIDTHS) -> None:
        super().__init__()
        stages, channels = [], 3
        for width in widths:
            stages.append(
                nn.Sequential(conv_block(channels, width, stride=2), conv_block(width, width))
            )
            channels = width
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, x = [], images  # (B, 3, H, W)
        for stage in self.stages:
            x = stage(x)  # (B, C_i, H / 2^i, W / 2^i)
            maps.append(x)
        return maps


class DenseRegressor(nn.Module):
    """U-Net over `ConvEncoder`: (B, 3, H, W) in [0, 1] -> (B, C, H, W); H, W divisible by 16."""

    def __init__(self, out_channels: int, widths: tuple[int, ...] = ENCODER_WIDTHS) -> None:
        super().__init__()
        self.encoder = ConvEncoder(widths)
        self.context = conv_block(widths[-1], widths[-1])
        reversed_widths = widths[::-1]
        self.decoder = nn.ModuleList(
            conv_block(deep + skip, skip)
            for deep, skip in zip(reversed_widths[:-1], reversed_widths[1:], strict=True)
        )
        self.head = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        *skips, x = self.encoder(images - 0.5)
        x = self.context(x)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        size = images.shape[-2:]
        return F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=False)


class DetectorBackbone(nn.Module):
    """`ConvEncoder` and a feature pyramid at strides 4, 8, 16 and 32."""

    out_channels = FPN_CHANNELS

    def __init__(self, widths: tuple[int, ...] = ENCODER_WIDTHS) -> None:
        super().__init__()
        self.encoder = ConvEncoder(widths)
        self.deepest = conv_block(widths[-1], widths[-1], stride=2)
        self.pyramid = FeaturePyramidNetwork([*widths[1:], widths[-1]], FPN_CHANNELS)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.encoder(images)[1:]
        maps.append(self.deepest(maps[-1]))
        named = OrderedDict((f"level{i}", x) for i, x in enumerate(maps))
        return self.pyramid(named)


def build_detector(num_classes: int, *, image_size: int = 128) -> MaskRCNN:
    """Mask R-CNN (He et al. 2017) by torchvision with a small backbone and small heads.

    `num_classes` counts the background (id 0). Images go in as a list of (3, H, W) in [0, 1].
    """
    levels = [f"level{i}" for i in range(4)]
    return MaskRCNN(
        DetectorBackbone(),
        min_size=image_size,
        max_size=4 * image_size,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in (12, 24, 48, 96)), ((0.5, 1.0, 2.0),) * 4
        ),
        rpn_pre_nms_top_n_train=2 * PROPOSALS,
        rpn_pre_nms_top_n_test=2 * PROPOSALS,
        rpn_post_nms_top_n_train=PROPOSALS,
        rpn_post_nms_top_n_test=PROPOSALS,
        rpn_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=5, sampling_ratio=2),
        box_head=TwoMLPHead(FPN_CHANNELS * 25, 128),
        box_predictor=FastRCNNPredictor(128, num_classes),
        box_batch_size_per_image=48,
        box_detections_per_img=20,
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=12, sampling_ratio=2),
        mask_head=MaskRCNNHeads(FPN_CHANNELS, (FPN_CHANNELS, FPN_CHANNELS), 1),
        mask_predictor=MaskRCNNPredictor(FPN_CHANNELS, FPN_CHANNELS, num_classes),
    )
