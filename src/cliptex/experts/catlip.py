"""The CLIPTeX authors' public Mask R-CNN with a plain ViT-B, trained on COCO, as an expert."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.experts.composite import DETECTOR_SCORE, predict_instances, unlabelled_id
from cliptex.experts.protocol import MAX_SIDE, ExpertSpec, Prediction, Unlabelled
from cliptex.experts.torch_expert import (
    Adapter,
    Outputs,
    Placement,
    TorchExpert,
    load_exactly,
    read_weights,
)
from cliptex.experts.torchvision_detectors import COCO_CLASSES, detect_whole
from cliptex.files import sha256_file
from cliptex.labels.codecs import fitted_size
from cliptex.models.detection.mask_rcnn import DetectorForm, build_vit_maskrcnn

TRAINING_ONLY = "model.backbone.encoder.neural_augmentor."
THRESHOLDS = {"score": 0.5, "mask": 0.5}
# Below the compositor's threshold, so that the detector drops nothing the compositor would paint,
# yet no mask of a hopeless detection is ever made.
DROPPED = 0.499
SOURCE = "https://github.com/apple/corenet (projects/catlip/object_detection)"
LICENCE = "Apple sample code licence (code); none stated (weights)"
RELEASED = DetectorForm(score_threshold=DROPPED)


def load_catlip_maskrcnn(
    weights: Path,
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    form: DetectorForm = RELEASED,
    side: int = 1024,
    unlabelled: Unlabelled = "background",
) -> TorchExpert:
    """The expert from the released `maskrcnn_vit_base.pt`.

    Labels are `ClassMap` of background and COCO's 80 classes, at the image's aspect. `side` is the
    square input's; `unlabelled` says what pixels without an instance become. Raises
    FileNotFoundError, and ValueError where a tensor is missing, unexpected or misshapen; the
    scalars of training-time augmentation are ignored.
    """
    weights = Path(weights)
    state = {k: x for k, x in read_weights(weights).items() if not k.startswith(TRAINING_ONLY)}
    network = build_vit_maskrcnn(replace(form, classes=len(COCO_CLASSES.classes)))
    load_exactly(network, state, weights)
    spec = ExpertSpec(
        name="catlip-maskrcnn-vit-b",
        kind=COCO_CLASSES,
        source=SOURCE,
        revision=weights.stem,
        weights_sha256=sha256_file(weights),
        licence=LICENCE,
        preprocessing={
            "size": [side, side],
            "resize": "bilinear, aspect not kept",
            "scale": "1/255",
        },
        thresholds=THRESHOLDS | {"unlabelled": unlabelled_id(unlabelled, COCO_CLASSES.ignore)},
        learnt_from=("coco",),
        confidence=DETECTOR_SCORE,
    )
    adapter = Adapter(lambda i: to_input(i, side), detect, partial(read, unlabelled=unlabelled))
    return TorchExpert(spec, network, adapter, placement)


def to_input(image: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, side, side) float32 in [0, 1], squashed."""
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def detect(network: nn.Module, images: Tensor) -> list[Outputs]:
    """torchvision's outputs per image: masks (n, 1, side, side), labels and scores (n,), boxes."""
    return detect_whole(network.get_submodule("model"), images)


def read(
    found: Outputs, size: tuple[int, int], unlabelled: Unlabelled = "background"
) -> Prediction:
    """The composited class map at the image's aspect, long side at most 512."""
    small = fitted_size(size, MAX_SIDE)
    masks = np.zeros((0, *small), dtype=np.float32)
    if len(found["masks"]):  # interpolation refuses an empty batch
        resized = F.interpolate(found["masks"], size=small, mode="bilinear", align_corners=True)
        masks = resized[:, 0].numpy()
    classes, scores = found["labels"].numpy(), found["scores"].numpy()
    return predict_instances(
        masks,
        classes,
        scores,
        size=small,
        score_threshold=THRESHOLDS["score"],
        mask_threshold=THRESHOLDS["mask"],
        unlabelled=unlabelled,
    )
