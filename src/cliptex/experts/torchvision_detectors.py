"""torchvision's Mask R-CNN as an expert, and COCO's classes.

The network's parts are called one after the other instead of its `forward`, which pastes every
mask at the size of the photograph: ours are pasted at the label's size, and detections below the
score threshold are dropped before they get a mask. Dropping them early changes no other
detection, because non-maximum suppression lets only higher scores suppress lower ones.

COCO's ids run from 1 to 90 and leave out ten; detectors trained on the raw ids have 91 outputs,
with 0 for background. Labels number the classes 1 to 80 in the order of the ids.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    MaskRCNN,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.image_list import ImageList

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
from cliptex.files import sha256_file
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import ClassMap

SPARSE_IDS = 91  # outputs of a detector on raw ids: 0 to 90
MISSING_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
COCO_NAMES = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(","))
COCO_CLASSES = ClassMap(("background", *COCO_NAMES))


def contiguous_ids() -> np.ndarray:
    """Table (91,) int64 from a raw id to 1..80; 0 for background and for ids without a class."""
    table = np.zeros(SPARSE_IDS, dtype=np.int64)
    used = [number for number in range(1, SPARSE_IDS) if number not in MISSING_IDS]
    table[used] = np.arange(1, len(used) + 1)
    return table


THRESHOLDS = {"score": 0.5, "mask": 0.5, "nms": 0.5}
COCO_WEIGHTS = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1


def load_maskrcnn(
    weights: str | Path | None = None,
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    unlabelled: Unlabelled = "background",
) -> TorchExpert:
    """Mask R-CNN with a ResNet-50 and a feature pyramid, trained on COCO (47.4 box AP).

    `weights` is a state dict of torchvision's `maskrcnn_resnet50_fpn_v2`, .pth or .safetensors,
    plain or under the key "model"; without it torchvision's own are downloaded into torch's hub
    cache. `unlabelled` says what pixels without an instance become. Raises FileNotFoundError where
    the file is absent, ValueError where its keys or shapes are not those of the network.
    """
    path = _downloaded() if weights is None else Path(weights)
    with torch.device("meta"):
        network = build_maskrcnn()
    load_exactly(network, read_weights(path), path)
    transform: Any = network.transform
    source = "torchvision maskrcnn_resnet50_fpn_v2" if weights is None else str(weights)
    spec = ExpertSpec(
        name="maskrcnn-resnet50-fpn-v2",
        kind=COCO_CLASSES,
        source=source,
        revision=COCO_WEIGHTS.name if weights is None else "",
        weights_sha256=sha256_file(path),
        licence="BSD-3-Clause",
        preprocessing={
            "resize": "bilinear, aspect kept",
            "shorter_side": transform.min_size[-1],
            "longer_side_at_most": transform.max_size,
            "mean": list(transform.image_mean),
            "std": list(transform.image_std),
        },
        thresholds=THRESHOLDS | {"unlabelled": unlabelled_id(unlabelled, COCO_CLASSES.ignore)},
        learnt_from=("coco",),
        confidence=DETECTOR_SCORE,
    )
    return maskrcnn_expert(spec, network, placement, unlabelled)


def build_maskrcnn() -> MaskRCNN:
    """The untrained network with COCO's 91 outputs and our thresholds."""
    return maskrcnn_resnet50_fpn_v2(
        weights=None,
        weights_backbone=None,
        num_classes=SPARSE_IDS,
        # torchvision keeps scores above its threshold, the compositor those at it
        box_score_thresh=float(np.nextafter(np.float32(THRESHOLDS["score"]), np.float32(0))),
        box_nms_thresh=THRESHOLDS["nms"],
    )


def maskrcnn_expert(
    spec: ExpertSpec, network: MaskRCNN, placement: Placement, unlabelled: Unlabelled
) -> TorchExpert:
    """Any Mask R-CNN of torchvision's class with COCO's 91 outputs as an expert."""

    transform: Any = network.transform

    def prepare(image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, h, w) float32 normalised and resized, not padded."""
        pixels = torch.tensor(image).permute(2, 0, 1).float() / 255  # (3, H, W)
        resized, _ = transform.resize(transform.normalize(pixels))
        return resized

    read = partial(_read, unlabelled=unlabelled)
    return TorchExpert(spec, network, Adapter(prepare, _detect, read), placement)


def _downloaded() -> Path:
    """torchvision's weights in torch's hub cache, fetched and checked where they are absent."""
    name = COCO_WEIGHTS.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rsplit("-", 1)[-1]  # the name ends in the hash's first digits
        try:
            torch.hub.download_url_to_file(COCO_WEIGHTS.url, str(path), prefix, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: of another hash
            raise OSError(
                f"{COCO_WEIGHTS.url} could not be downloaded ({error}): download it where there is "
                "a network and give the file (`weights`)"
            ) from error
    return path


def _detect(network: Any, batch: Tensor) -> list[Outputs]:
    """Detections of images of one size (B, 3, h, w).

    boxes (n, 4) are x0, y0, x1, y1 relative to the image, masks (n, m, m) probabilities in them,
    classes (n,) 1..80, scores (n,). Only the backbone runs in half precision: heads compare
    scores, which drops NaN silently, so `features` shows whether anything was not finite.
    """
    size = (batch.shape[2], batch.shape[3])
    images = network.transform.batch_images(list(batch))  # padded to multiples of 32
    pyramid = network.backbone(images)
    with torch.autocast(batch.device.type, enabled=False):
        pyramid = {name: x.float() for name, x in pyramid.items()}
        found = _heads(network, images, pyramid, [size] * len(batch))
    table = torch.as_tensor(contiguous_ids(), device=batch.device)
    scale = torch.tensor([size[1], size[0]] * 2, device=batch.device)
    outputs: list[Outputs] = []
    for i, one in enumerate(found):
        classes = table[one["labels"]]
        named = classes > 0
        outputs.append(
            {
                "boxes": (one["boxes"] / scale)[named],
                "masks": one["masks"][named, 0],
                "classes": classes[named],
                "scores": one["scores"][named],
                "features": torch.stack([x[i].sum() for x in pyramid.values()]),
            }
        )
    return outputs


def _heads(
    network: Any, images: Tensor, pyramid: dict[str, Tensor], sizes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Boxes in pixels, raw labels, scores and masks (n, 1, m, m) of each image."""
    proposals, _ = network.rpn(ImageList(images, sizes), pyramid)
    detections, _ = network.roi_heads(pyramid, proposals, sizes)
    return detections


def detect_whole(network: Any, batch: Tensor) -> list[Outputs]:
    """What a Mask R-CNN's own `forward` finds in images (B, 3, H, W), and `features` as above.

    masks (n, 1, H, W) soft, labels and scores (n,), boxes (n, 4) in pixels.
    """
    images, _ = network.transform(list(batch))
    pyramid = network.backbone(images.tensors)
    with torch.autocast(batch.device.type, enabled=False):
        pyramid = {name: x.float() for name, x in pyramid.items()}
        found = _heads(network, images.tensors, pyramid, images.image_sizes)
        sizes = [(image.shape[1], image.shape[2]) for image in batch]
        found = network.transform.postprocess(found, images.image_sizes, sizes)
    return [
        {**one, "features": torch.stack([x[i].sum() for x in pyramid.values()])}
        for i, one in enumerate(found)
    ]


def _read(outputs: Outputs, image_size: tuple[int, int], *, unlabelled: Unlabelled) -> Prediction:
    size = fitted_size(image_size, MAX_SIDE)
    return predict_instances(
        paste_masks(outputs["masks"], outputs["boxes"], size).numpy(),
        outputs["classes"].numpy(),
        outputs["scores"].numpy(),
        size=size,
        score_threshold=THRESHOLDS["score"],
        mask_threshold=THRESHOLDS["mask"],
        unlabelled=unlabelled,
    )


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (n, m, m), each stretched over its box, in planes (n, H, W).

    Boxes (n, 4) are x0, y0, x1, y1 relative to the picture. Bilinear between the centres of mask
    cells, so boxes need not fall on pixels; masks fade to 0 from their outermost centres to half a
    cell outside the box, beyond which all is 0.
    """
    planes = masks.new_zeros(len(masks), *size)
    centres = [(torch.arange(side) + 0.5) / side for side in size]
    for plane, mask, box in zip(planes, masks, boxes, strict=True):
        x0, y0, x1, y1 = box.tolist()
        ys = (centres[0] - y0) / max(y1 - y0, 1e-9) * 2 - 1  # (H,) in [-1, 1] inside the box
        xs = (centres[1] - x0) / max(x1 - x0, 1e-9) * 2 - 1  # (W,)
        grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)  # (H, W, 2)
        cells = mask[None, None]  # (1, 1, m, m)
        plane[:] = nn.functional.grid_sample(cells, grid[None], align_corners=False)[0, 0]
    return planes
