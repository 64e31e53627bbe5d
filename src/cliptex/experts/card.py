"""Cards: YAML files that say everything needed to run an ONNX model as an expert.

A shipped card, `experts/cards/nyu_depth.yaml`, shows every section. Unknown keys are refused.
`prepare` does what the input section says to an image, `label_from_output` what the output section
says to the network's answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cliptex.experts.protocol import FRAME_SIGNS, MAX_SIDE, Frame
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import Box, ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.sampling import SNAP, sample_bilinear

Triple = tuple[float, float, float]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Squash(_Section):
    """Resize to exactly `height` x `width`, whatever the image's aspect."""

    rule: Literal["squash"]
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Pad(_Section):
    """Keep the aspect, fill as much of `height` x `width` as fits, top left; pad the rest."""

    rule: Literal["pad"]
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    value: int = Field(default=0, ge=0, le=255)
    """The padding in every channel, before normalisation."""


class Multiple(_Section):
    """Keep the aspect up to rounding: the longer (or shorter) side becomes `side`, then both
    sides the nearest multiple of `multiple`."""

    rule: Literal["multiple"]
    side: int = Field(gt=0)
    of: Literal["longer", "shorter"] = "longer"
    multiple: int = Field(default=32, gt=0)


class Input(_Section):
    """How an image becomes the network's input: (value * scale - mean) / std per channel."""

    resize: Annotated[Squash | Pad | Multiple, Field(discriminator="rule")]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Antialiased, as PIL does it."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["uint8", "float32", "float16"] = "float32"
    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    fixed_batch: bool = False
    """The model takes exactly one image at a time."""


class ClassIds(_Section):
    """Integer class ids, (N, H, W) up to axes of length 1."""

    type: Literal["class-ids"]
    classes: tuple[str, ...]

    @property
    def kind(self) -> ClassMap:
        """The kind of label."""
        return ClassMap(self.classes, 255 if len(self.classes) <= 255 else 65535)


class Logits(_Section):
    """Class scores; bilinearly enlarged before the highest wins."""

    type: Literal["logits"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    classes: tuple[str, ...]

    @property
    def kind(self) -> ClassMap:
        """The kind of label."""
        return ClassMap(self.classes, 255 if len(self.classes) <= 255 else 65535)


class Scalar(_Section):
    """Depth or disparity, (N, H, W) up to axes of length 1.

    Labels are disparity: metres ("m") become 1/m, and what is not positive becomes invalid.
    """

    type: Literal["scalar"]
    unit: Literal["1/m", "m", "relative disparity"]

    @property
    def kind(self) -> ScalarField:
        """The kind of label."""
        return ScalarField("1/m" if self.unit == "m" else self.unit)


class Vector(_Section):
    """Surface normals of any length, in one of the known frames; labels are converted."""

    type: Literal["vector"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    frame: Frame

    @property
    def kind(self) -> UnitVector:
        """The kind of label."""
        return UnitVector()


Output = ClassIds | Logits | Scalar | Vector


class Card(_Section):
    """One ONNX expert."""

    name: str
    file: str
    """The model, relative to the card's folder (or to the weights folder that is given)."""
    sha256: str = ""
    """Checked where given."""
    source: str
    revision: str = ""
    licence: str
    learnt_from: tuple[str, ...] = ()
    """Benchmarks whose images the model was trained on, such as voc or nyu-depth."""
    input: Input
    output: Annotated[Output, Field(discriminator="type")]
    output_name: str = ""
    """Which output of the graph; the first by default."""

    @model_validator(mode="after")
    def _integers_are_not_normalised(self) -> Card:
        if self.input.dtype == "uint8" and (
            self.input.scale != 1 or any(self.input.mean) or set(self.input.std) != {1.0}
        ):
            raise ValueError("a uint8 input takes pixels as they are: leave scale, mean and std")
        return self

    @property
    def kind(self) -> Kind:
        """The kind of label this expert makes."""
        return self.output.kind


def read_card(path: Path) -> Card:
    """Read and check a card; ValueError naming the file and the keys that are wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Card.model_validate(data)
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a valid expert card: {error}") from None


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Prepared:
    """A tensor without its batch axis, and where the image lies in it.

    `area` is the part of the tensor's plane that the image covers; `image_size` (H, W) is the
    original image's, `area_size` the image's in tensor pixels.
    """

    tensor: np.ndarray
    area: Box
    area_size: tuple[int, int]
    image_size: tuple[int, int]


def prepare(image: np.ndarray, spec: Input) -> Prepared:
    """Resize, pad, normalise and lay out one image (H, W, 3) uint8 RGB."""
    size = (image.shape[0], image.shape[1])
    inner, plane = network_size(size, spec)
    pixels = _resize(image, inner, spec.interpolation)
    if plane != inner:
        value = spec.resize.value if isinstance(spec.resize, Pad) else 0
        padded = np.full((*plane, 3), value, dtype=np.uint8)
        padded[: inner[0], : inner[1]] = pixels
        pixels = padded
    if spec.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = pixels.transpose(2, 0, 1)  # (3, H, W)
    if spec.dtype != "uint8":
        planes = _normalise(planes, spec)
    pixels = planes if spec.layout == "NCHW" else planes.transpose(1, 2, 0)
    area = Box(right=inner[1] / plane[1], bottom=inner[0] / plane[0])
    return Prepared(np.ascontiguousarray(pixels), area, inner, size)


def _normalise(planes: np.ndarray, spec: Input) -> np.ndarray:
    """(3, H, W) uint8 -> (3, H, W) of the card's dtype: a table look-up for each channel."""
    values = np.arange(256, dtype=np.float32)[:, None] * np.float32(spec.scale)
    table = (values - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)  # (256, 3)
    return np.stack(
        [
            column.take(plane)
            for column, plane in zip(table.astype(spec.dtype).T, planes, strict=True)
        ]
    )


def network_size(size: tuple[int, int], spec: Input) -> tuple[tuple[int, int], tuple[int, int]]:
    """(size of the resized image, size of the network's input plane), both (h, w)."""
    rule = spec.resize
    if isinstance(rule, Pad):
        ratio = min(rule.height / size[0], rule.width / size[1])
        inner = (
            min(rule.height, max(1, round(size[0] * ratio))),
            min(rule.width, max(1, round(size[1] * ratio))),
        )
        return inner, (rule.height, rule.width)
    if isinstance(rule, Multiple):
        ratio = rule.side / (max(size) if rule.of == "longer" else min(size))
        height, width = (
            max(1, round(side * ratio / rule.multiple)) * rule.multiple for side in size
        )
        return (height, width), (height, width)
    return (rule.height, rule.width), (rule.height, rule.width)


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """(H, W, 3) -> (h, w, 3) uint8."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), _FILTERS[interpolation])
    return np.asarray(resized)


def label_from_output(output: np.ndarray, spec: Output, prepared: Prepared) -> np.ndarray:
    """One image's label: padding cut off, at the image's aspect, in its kind's array form.

    The longer side is the smallest of the image's, the network's (its input's for logits, whose
    maps are coarse) and 512 pixels: enlarging further would add bytes and no information.
    Raises ValueError where the output has another shape than the card says.
    """
    if isinstance(spec, Logits):
        return _from_logits(output, spec, prepared)
    if isinstance(spec, Vector):
        vectors = spec.kind.check(_channels_last(output, spec.layout, 3))
        values = vectors * np.array(FRAME_SIGNS[spec.frame], dtype=np.float32)
    else:
        values = spec.kind.check(_plane(output))
    if isinstance(spec, Scalar) and spec.unit == "m":
        disparity = np.full_like(values, np.nan)
        values = np.divide(1, values, out=disparity, where=values > 0)
    return spec.kind.sample(*_image_part(values, prepared))


def _from_logits(output: np.ndarray, spec: Logits, prepared: Prepared) -> np.ndarray:
    """Enlarge class by class and keep the best, so that memory holds one class at a time."""
    scores = _channels_last(output, spec.layout, len(spec.classes))
    if not np.isfinite(scores).all():
        raise ValueError("the network's class scores are not finite")
    scores, box, _ = _image_part(scores, prepared)
    size = _label_size(prepared, max(prepared.area_size))
    best = np.full(size, -np.inf, dtype=np.float32)
    ids = np.zeros(size, dtype=np.uint8 if len(spec.classes) <= 255 else np.uint16)
    for number in range(len(spec.classes)):
        score = sample_bilinear(scores[:, :, number], box, size)
        better = score > best
        best[better] = score[better]
        ids[better] = number
    return ids


def _image_part(array: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, Box, tuple[int, int]]:
    """Pixels of an output plane that the image touches, its box in them, and the label's size.

    Padding is cut off before anything is interpolated, so it cannot bleed into the label.
    """
    height = array.shape[0] * prepared.area.bottom
    width = array.shape[1] * prepared.area.right
    rows, columns = (math.ceil(extent - SNAP) for extent in (height, width))
    box = Box(right=min(1.0, width / columns), bottom=min(1.0, height / rows))
    size = _label_size(prepared, max(1, round(max(height, width))))
    return array[:rows, :columns], box, size


def _label_size(prepared: Prepared, longest: int) -> tuple[int, int]:
    return fitted_size(prepared.image_size, min(longest, MAX_SIDE))


def _plane(output: np.ndarray) -> np.ndarray:
    """(h, w) from an output with axes of length 1 around or between."""
    if output.ndim == 3 and output.shape[0] == 1:
        output = output[0]
    elif output.ndim == 3 and output.shape[2] == 1:
        output = output[:, :, 0]
    if output.ndim != 2:
        raise ValueError(f"expected one plane (h, w) per image, the network gave {output.shape}")
    return output


def _channels_last(output: np.ndarray, layout: str, channels: int) -> np.ndarray:
    """(h, w, channels) float32."""
    moved = np.moveaxis(output, 0, -1) if layout == "NCHW" and output.ndim == 3 else output
    if moved.ndim != 3 or moved.shape[2] != channels:
        raise ValueError(
            f"expected {channels} channels in layout {layout}, the network gave {output.shape} "
            "per image"
        )
    return np.ascontiguousarray(moved, dtype=np.float32)
