"""SSD on the maps of an encoder: light levels and predictors, torchvision's matching and loss.

Layers and values are those of the authors' library (corenet, modeling/models/detection/ssd.py and
modeling/modules/ssd_heads.py; ml-cvnets, config/detection/ssd_coco/mobilevit.yaml).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from cliptex.models.config import GLOBAL, SsdForm
from cliptex.models.detection.mask_rcnn import Targets, blank_images
from cliptex.models.detection.pyramid import SINGLE_STRIDE, check_strides, on_grid

LAYERS = "ReLU, projected where widths differ, a bare 1x1 on the mean, Glorot's first weights"
"""What rows and saved states say of the layers, beside the form. Other layers need other words."""


def prior_scales(form: SsdForm) -> list[float]:
    """Sides of the priors, as shares of the image's, evenly spaced: one more than levels."""
    return torch.linspace(*form.sides, len(form.strides) + 1).tolist()


def default_boxes(form: SsdForm) -> DefaultBoxGenerator:
    """Priors per cell: a square of the level's scale, one of the mean with the next, ratios."""
    ratios = [list(level) for level in form.ratios]
    return DefaultBoxGenerator(ratios, scales=prior_scales(form), clip=True)


class SsdLevels(nn.Module):
    """{stride: map} of an encoder -> the maps of all levels, in their order.

    Behind an encoder of one map, stride 16 is that map and stride 32 its 2x2 maximum, as in the
    simple pyramid, whose finer levels SSD does not read.
    """

    def __init__(self, channels: Mapping[int, int], form: SsdForm) -> None:
        super().__init__()
        if len(channels) == 1:
            width = next(iter(channels.values()))
            channels = {SINGLE_STRIDE: width, 2 * SINGLE_STRIDE: width}
        check_strides(channels)
        self.read = [stride for stride in form.strides if stride in channels]
        if self.read != list(form.strides[: len(self.read)]) or not self.read:
            raise ValueError(
                f"an encoder with maps at strides {sorted(channels)} does not give the first "
                f"levels of {list(form.strides)}; set `strides` to begin with what it gives"
            )
        self.channels = [channels[stride] for stride in self.read]
        self.extra = nn.ModuleList()
        for stride, width in list(zip(form.strides, form.widths, strict=True))[len(self.read) :]:
            made = self.channels[-1]
            self.extra.append(_averaged(made, width) if stride == GLOBAL else _halved(made, width))
            self.channels.append(width)

    def forward(self, maps: Mapping[int, Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The levels of images of `size` (height, width)."""
        maps = on_grid(maps, size)
        if len(maps) == 1:
            maps[2 * SINGLE_STRIDE] = F.max_pool2d(maps[SINGLE_STRIDE], 2)
        levels = [maps[stride] for stride in self.read]
        for layer in self.extra:
            levels.append(layer(levels[-1]))
        return levels


class SsdPredictor(nn.Module):
    """Per level one separable convolution to offsets and logits of all priors.

    Where the level's width is not the form's, a projection to it comes first; on the mean over the
    map the convolution is a bare 1x1 one.
    """

    def __init__(
        self, channels: Sequence[int], form: SsdForm, priors: Sequence[int], classes: int
    ) -> None:
        super().__init__()
        self.values = 4 + classes
        outputs = [count * self.values for count in priors]
        self.levels = nn.ModuleList(
            _predictor(inputs, width, out, mean=stride == GLOBAL)
            for inputs, width, out, stride in zip(
                channels, form.widths, outputs, form.strides, strict=True
            )
        )

    def forward(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """`bbox_regression` (B, priors, 4) and `cls_logits` (B, priors, classes)."""
        flat = []
        for layer, x in zip(self.levels, levels, strict=True):
            out = layer(x).unflatten(1, (-1, self.values))  # (B, A, 4 + classes, h, w)
            flat.append(out.permute(0, 3, 4, 1, 2).flatten(1, 3))  # (B, h * w * A, 4 + classes)
        both = torch.cat(flat, dim=1)
        return {"bbox_regression": both[..., :4], "cls_logits": both[..., 4:]}


class SsdHead(nn.Module):
    """Everything behind a frozen encoder; the loss is torchvision's (Liu et al. 2015, eq. 1).

    Args:
        channels: widths of the encoder's maps by stride.
        classes: number of classes with the background, which is class 0.
        form: levels, priors and thresholds.
    """

    def __init__(self, channels: Mapping[int, int], classes: int, form: SsdForm) -> None:
        super().__init__()
        levels, boxes = SsdLevels(channels, form), default_boxes(form)
        priors = boxes.num_anchors_per_location()
        predictor = SsdPredictor(levels.channels, form, priors, classes)
        for module in (*levels.modules(), *predictor.modules()):
            if isinstance(module, nn.Conv2d):
                _start(module)
        self.model = SSD(
            levels,
            boxes,
            size=(1, 1),  # of torchvision's transform, which is not used
            num_classes=classes,
            head=predictor,
            score_thresh=form.score_threshold,
            nms_thresh=form.nms,
            detections_per_img=form.detections,
            iou_thresh=form.iou,
            topk_candidates=form.candidates,
            positive_fraction=form.positive,
        )

    def losses(
        self, maps: Mapping[int, Tensor], size: tuple[int, int], targets: Targets
    ) -> dict[str, Tensor]:
        """Smooth L1 and cross-entropy with hard negatives, each summed over the batch and divided
        by its number of positive priors. Arguments as `MaskRcnnHead.losses`, without masks."""
        outputs, priors = self._run(maps, size)
        matches = [self._match(x["boxes"], p) for x, p in zip(targets, priors, strict=True)]
        return self.model.compute_loss(targets, outputs, priors, matches)

    def detect(self, maps: Mapping[int, Tensor], size: tuple[int, int]) -> Targets:
        """Per image `boxes` (n, 4), `labels`, `scores` (n,), for evaluation mode."""
        outputs, priors = self._run(maps, size)
        return self.model.postprocess_detections(outputs, priors, [size] * len(priors))

    def _run(
        self, maps: Mapping[int, Tensor], size: tuple[int, int]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        levels = self.model.backbone(maps, size)
        images = blank_images(levels[0], size)
        return self.model.head(levels), self.model.anchor_generator(images, levels)

    def _match(self, boxes: Tensor, priors: Tensor) -> Tensor:
        """Index of the object of each prior (priors,), -1 where it has none."""
        if not len(boxes):
            return torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
        return self.model.proposal_matcher(box_iou(boxes, priors))


def _depthwise(width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _halved(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) -> (B, outputs, h / 2, w / 2), rounded up."""
    return nn.Sequential(
        _depthwise(inputs, stride=2), nn.BatchNorm2d(inputs), *_pointwise(inputs, outputs)
    )


def _averaged(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) -> (B, outputs, 1, 1); without a norm, which one picture would starve."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), conv, nn.ReLU())


def _predictor(inputs: int, width: int, outputs: int, *, mean: bool) -> nn.Sequential:
    """(B, inputs, h, w) -> (B, outputs, h, w)."""
    if mean:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1))
    project = _pointwise(inputs, width) if inputs != width else ()
    separable = (_depthwise(width), nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1))
    return nn.Sequential(*project, *separable)


def _start(conv: nn.Conv2d) -> None:
    """The weights that the authors' library starts from (Glorot & Bengio 2010), biases of 0."""
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
