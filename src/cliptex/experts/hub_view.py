"""How an image enters a segmentation network of the hub, and where its masks lie afterwards.

Every image is resized as its processor's size says, alone, and never padded to a batch; what a
network must pad (EoMT to its square, the pyramids to whole mask pixels) is cut off its masks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliptex.experts.hub import Checkpoint, import_transformers, load_processor
from cliptex.labels.kinds import Box
from cliptex.labels.sampling import WHOLE

Size = tuple[int, int]
# Arguments that keep a processor from padding, by model type.
_NO_PADDING: dict[str, dict[str, object]] = {
    "mask2former": {"pad_size": None},
    "maskformer": {"pad_size": None},
    "eomt": {"do_pad": False},
    "rf_detr": {"do_pad": False},
}
# Input pixels per mask pixel of networks that pad their input to whole mask pixels.
_STRIDES = {"mask2former": 4, "maskformer": 4, "oneformer": 4}


@dataclass(frozen=True)
class View:
    """How images enter the network and which part of its mask planes they cover.

    prepare: (H, W, 3) uint8 -> (3, h, w) float32.
    box: (size of the image, size of a mask plane) -> the part of the plane that the image covers.
    description: JSON values for the manifest.
    """

    prepare: Callable[[np.ndarray], Tensor]
    box: Callable[[Size, Size], Box]
    description: dict[str, object]


def load_view(checkpoint: Checkpoint, config: Any) -> View:
    """The checkpoint's view; ValueError where its processor cuts windows or does not resize."""
    changes: dict[str, object] = {}
    if config.model_type == "oneformer":
        changes["class_info_file"] = None  # words for training texts, fetched from the network
    processor = load_processor(checkpoint, **changes)
    if getattr(processor, "do_split_image", False):
        raise ValueError(
            f"{checkpoint.source} cuts images into windows; use an instance or panoptic checkpoint"
        )
    rule = _size_rule(processor, checkpoint.source)
    canvas = _canvas(processor, config)
    stride = _STRIDES.get(config.model_type)
    options = _NO_PADDING.get(config.model_type, {})

    def prepare(image: np.ndarray) -> Tensor:
        height, width = rule((image.shape[0], image.shape[1]))
        pixels = processor(
            images=image,
            input_data_format="channels_last",
            size={"height": height, "width": width},
            return_tensors="pt",
            **options,
        )["pixel_values"][0]  # (3, h, w)
        return pixels if canvas is None else _pad(pixels, canvas, processor)

    def box(image: Size, plane: Size) -> Box:
        if canvas is None and stride is None:
            return WHOLE
        height, width = canvas or (plane[0] * (stride or 1), plane[1] * (stride or 1))
        inner = rule(image)
        return Box(right=min(1.0, inner[1] / width), bottom=min(1.0, inner[0] / height))

    return View(prepare, box, _describe(processor, canvas))


def _canvas(processor: Any, config: Any) -> Size | None:
    """The square that EoMT, whose positions are fixed, has its images padded to."""
    if config.model_type != "eomt" or not getattr(processor, "do_pad", False):
        return None
    side = config.image_size
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


def _size_rule(processor: Any, source: str) -> Callable[[Size], Size]:
    """(H, W) of an image -> (h, w) that it is resized to, before padding."""
    resized = import_transformers().image_transforms.get_size_with_aspect_ratio

    size = {name: value for name, value in dict(processor.size).items() if value}
    divisor = getattr(processor, "size_divisor", None) or 1
    fixed = "height" in size and "width" in size
    if not processor.do_resize or not (fixed or "shortest_edge" in size):
        raise ValueError(
            f"{source}: the processor must resize to a height and width or a shortest edge, "
            f"got do_resize={processor.do_resize}, size={size}"
        )

    def rule(image: Size) -> Size:
        if fixed:
            inner = (size["height"], size["width"])
        else:
            shortest, longest = size["shortest_edge"], size.get("longest_edge")
            inner = resized(image, shortest, longest)
        height, width = (-(-max(1, int(side)) // divisor) * divisor for side in inner)
        return height, width

    return rule


def _pad(pixels: Tensor, canvas: Size, processor: Any) -> Tensor:
    """(3, h, w) -> (3, *canvas), on the right and below with black as it looks normalised."""
    black = torch.zeros(3)
    if processor.do_normalize:
        black = -torch.tensor(processor.image_mean) / torch.tensor(processor.image_std)
    padded = black[:, None, None].repeat(1, *canvas)
    padded[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return padded


def _describe(processor: Any, canvas: Size | None) -> dict[str, object]:
    return {
        "processor": type(processor).__name__,
        "size": {name: value for name, value in dict(processor.size).items() if value},
        "size_divisor": getattr(processor, "size_divisor", None),
        "padded_to": None if canvas is None else list(canvas),
        "resample": int(processor.resample),
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
    }
