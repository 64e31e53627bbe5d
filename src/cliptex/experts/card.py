"""Cards: YAML files that say everything needed to run an ONNX model as an expert.

A shipped card, `experts/cards/nyu_depth.yaml`, shows every section. Unknown keys are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cliptex.experts.protocol import Frame
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

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


class Logits(_Section):
    """Class scores; bilinearly enlarged before the highest wins."""

    type: Literal["logits"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    classes: tuple[str, ...]


class Scalar(_Section):
    """Depth or disparity, (N, H, W) up to axes of length 1.

    Labels are disparity: metres ("m") become 1/m, and what is not positive becomes invalid.
    """

    type: Literal["scalar"]
    unit: Literal["1/m", "m", "relative disparity"]


class Vector(_Section):
    """Surface normals of any length, in one of the known frames; labels are converted."""

    type: Literal["vector"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    frame: Frame


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
        if isinstance(self.output, ClassIds | Logits):
            ignore = 255 if len(self.output.classes) <= 255 else 65535
            return ClassMap(self.output.classes, ignore)
        if isinstance(self.output, Scalar):
            return ScalarField("1/m" if self.output.unit == "m" else self.output.unit)
        return UnitVector()


def read_card(path: Path) -> Card:
    """Read and check a card; ValueError naming the file and the keys that are wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Card.model_validate(data)
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a valid expert card: {error}") from None
