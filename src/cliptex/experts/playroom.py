"""The playroom's own experts, trained on its `studio` domain and shipped with the package.

They play the parts of the paper's Mask R-CNN, DPT and NLL-AngMF (Section 4.1) in the embedded
world: trained on another domain than the one they label, and wrong as often as that makes them.

The networks, an instance detector and two dense regressors, have together about two million
parameters: small enough to be shipped and to run on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from cliptex.experts.composite import composite_instances, unlabelled_id
from cliptex.experts.protocol import ExpertSpec, Prediction, Unlabelled
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.experts.torchvision_detectors import detect_whole
from cliptex.files import load_json, sha256_file
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

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


WEIGHTS = Path(__file__).parents[1] / "playroom" / "weights"
TASKS = ("segmentation", "depth", "normals")
IMAGE_SIZE = 128
"""Long side in pixels at which the experts learnt and run."""
MULTIPLE = 16
"""Both sides are rounded to a multiple of the dense networks' coarsest stride."""
THRESHOLDS = {"score": 0.5, "mask": 0.5}


def to_network_input(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32 in [0, 1]: long side 128, sides multiples of 16."""
    height, width = image.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    h, w = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width))
    resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def _each(network: nn.Module, images: Tensor) -> list[Outputs]:
    """A dense network's output, image by image."""
    return [{"output": output} for output in network(images)]  # (C, H, W) each


def _read_instances(found: Outputs, size: tuple[int, int], *, unlabelled: Unlabelled) -> Prediction:
    """A class map of the network's size, composited from instances."""
    masks = found["masks"][:, 0].numpy()  # (n, H, W) soft, in [0, 1]
    class_map = composite_instances(
        masks,
        found["labels"].numpy(),
        found["scores"].numpy(),
        size=masks.shape[1:],
        score_threshold=THRESHOLDS["score"],
        mask_threshold=THRESHOLDS["mask"],
        unlabelled=unlabelled,
    )
    return Prediction(class_map)


def _read_disparity(found: Outputs, size: tuple[int, int]) -> Prediction:
    """(H, W) float32 disparity in 1/m, at least 0.02 (50 m)."""
    return Prediction(found["output"][0].clamp(min=0.02).numpy())


def _read_normals(found: Outputs, size: tuple[int, int]) -> Prediction:
    """(H, W, 3) float32 unit normals."""
    normals = nn.functional.normalize(found["output"], dim=0)  # (3, H, W)
    return Prediction(normals.permute(1, 2, 0).contiguous().numpy())


def _adapter(task: str, unlabelled: Unlabelled) -> Adapter:
    if task == "segmentation":
        read = partial(_read_instances, unlabelled=unlabelled)
        return Adapter(to_network_input, detect_whole, read)
    return Adapter(to_network_input, _each, _read_disparity if task == "depth" else _read_normals)


def build_network(task: str, num_classes: int) -> nn.Module:
    """The untrained network of `task`; `num_classes` (with background) matters to detection."""
    if task == "segmentation":
        return build_detector(num_classes, image_size=IMAGE_SIZE)
    return DenseRegressor(1 if task == "depth" else 3)


def _kind(task: str, classes: Sequence[str]) -> Kind:
    if task == "segmentation":
        return ClassMap(classes=tuple(classes))
    return ScalarField(unit="1/m") if task == "depth" else UnitVector()


def load_playroom_expert(
    task: str,
    folder: Path = WEIGHTS,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    unlabelled: Unlabelled = "background",
) -> TorchExpert:
    """The expert of `task` ("segmentation", "depth" or "normals") from `folder/TASK/`.

    `unlabelled` says what pixels without an instance become in class maps.
    Raises ValueError for another task, FileNotFoundError where the weights are absent.
    """
    if task not in TASKS:
        raise ValueError(f"no playroom expert {task!r}: use one of {', '.join(TASKS)}")
    path, card_path = folder / task / "model.safetensors", folder / task / "card.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: weights are absent; `cliptex playroom zoo` builds them")
    card = load_json(card_path, "a card of an expert")
    classes = card.get("classes", [])
    network = build_network(task, len(classes))
    kind = _kind(task, classes)
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    spec = ExpertSpec(
        name=f"playroom-{task}",
        kind=kind,
        source="cliptex playroom zoo",
        revision=str(card["revision"]),
        weights_sha256=sha256_file(path),
        licence="Apache-2.0",
        preprocessing={"long_side": IMAGE_SIZE, "multiple": MULTIPLE, "resize": "bilinear"},
        thresholds=THRESHOLDS | {"unlabelled": unlabelled_id(unlabelled, int(kind.invalid))}
        if task == "segmentation"
        else {},
        learnt_from=(),
    )
    return TorchExpert(spec, network, _adapter(task, unlabelled), placement)
