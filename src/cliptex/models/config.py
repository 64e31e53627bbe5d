"""Descriptions of models, heads and precision; imports neither torch nor open_clip.

A configuration of a run holds these types, so that the command line can show them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cliptex.files import parse_json, read_bytes, write_atomic

OPEN_CLIP, TIMM, CORENET, HUB = "open_clip:", "timm:", "corenet:", "hf-hub:"
PLAYROOM = "playroom"

Family = Literal["open_clip", "corenet"]
PositionRule = Literal["grid2d", "flat1d"]
OutputStride = Literal[8, 16, 32]
Norm = Literal["group", "batch"]
HeadName = Literal["linear", "deeplabv3", "pspnet"]
HEAD_NAMES: tuple[HeadName, ...] = get_args(HeadName)
WIDTH = 512  # channels of ASPP's and pyramid pooling's output in the authors' library

Precision = Literal["fp32", "tf32", "bf16"]
"""fp32: single precision. tf32: single precision whose products read 10 bits of each factor, on
NVIDIA GPUs since Ampere. bf16: autocast to bfloat16; weights, norms and sums stay fp32."""
HeadPrecision = Literal["fp32", "tf32"]
Gpu = Literal["a100", "h100", "h200", "l40s", "l4", "rtx4090"]
GPUS: tuple[Gpu, ...] = get_args(Gpu)
PEAKS: dict[Gpu, dict[Precision, float]] = {
    "a100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0},
    "h100": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "h200": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "l40s": {"fp32": 91.6, "tf32": 183.0, "bf16": 362.0},
    "l4": {"fp32": 30.3, "tf32": 60.0, "bf16": 121.0},
    "rtx4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
}
"""TFLOP/s of dense products with sums in fp32, from NVIDIA's data sheets (A100; H100 and H200 as
SXM; L40S; L4) and, for the RTX 4090, its Ada white paper. The sheets' numbers "with sparsity" are
twice those of tf32 and bf16."""

# Colours that OpenAI's weights want: `open_clip.constants`.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def split_name(text: str) -> tuple[str, str | None]:
    """("open_clip:RN50", "openai") of "open_clip:RN50/openai"; None where no weights are named.

    Only names of open_clip and timm have weights of their own. timm's spelling works too:
    "timm:resnet18.a1_in1k" and "timm:hf-hub:timm/resnet18.a1_in1k" are "timm:resnet18/a1_in1k".
    """
    if not text.startswith((OPEN_CLIP, TIMM)):
        return text, None
    short = text.removeprefix(TIMM)
    if short != text:
        short = short.removeprefix(HUB).removeprefix("timm/")
        text = TIMM + (short if "/" in short else short.replace(".", "/", 1))
    name, _, weights = text.partition("/")
    return name, weights or None


class ClipConfig(BaseModel):
    """An open_clip model description and what this package adds to it.

    Attributes:
        embed_dim: length of the joint embedding.
        vision_cfg: open_clip's CLIPVisionCfg keys (layers, width, patch_size, image_size, ...;
            timm_model_name for a timm tower).
        text_cfg: open_clip's CLIPTextCfg keys (context_length, width, heads, layers, ...).
        family: "corenet" builds the towers of the CLIPTeX authors' library instead of open_clip's;
            the keys of the two descriptions are then those of `cliptex.models.corenet.VitForm`.
        quick_gelu: sigmoid approximation of GELU, as OpenAI's weights want.
        init_logit_scale: natural logarithm of the first temperature's inverse.
        init_logit_bias: lets sigmoid-loss checkpoints load; the contrastive loss ignores it.
        conv_stem: replace a ViT's patchify convolution by a convolutional stem.
        pool_pos: how a ResNet's attention pooling, or a corenet tower, interpolates its positions
            for other sizes: on the grid, or along the flattened raster as the authors' library
            does. None: grid2d for a ResNet; for a corenet tower flat1d, with which its weights were
            trained.
        output_stride: of a ResNet: 16 or 8 dilates its last one or two stages, so that the dense
            map is finer; the embedding does not change. None: the tower's own.
        mean, std: colour normalisation of images in [0, 1].
        vocabulary: byte-pair ids kept by a compact tokenizer, or a JSON file with that list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed_dim: int
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    family: Family = "open_clip"
    quick_gelu: bool = False
    init_logit_scale: float = 2.6592600369327783  # ln(1 / 0.07), Radford et al. 2021
    init_logit_bias: float | None = None
    conv_stem: bool = False
    pool_pos: PositionRule | None = None
    output_stride: OutputStride | None = None
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    vocabulary: tuple[int, ...] | Path | None = None

    def resolved(self) -> ClipConfig:
        """The same with the vocabulary read from its file and its size put into text_cfg."""
        if self.vocabulary is None:
            return self
        vocabulary = self.vocabulary
        if isinstance(vocabulary, Path):
            vocabulary = _read_vocabulary(vocabulary)
        size = len(vocabulary) + 3  # padding, start, end
        stated = self.text_cfg.get("vocab_size", size)
        if stated != size:
            raise ValueError(
                f"text_cfg.vocab_size is {stated}, but a vocabulary of {len(vocabulary)} tokens "
                f"needs {size}: leave vocab_size out"
            )
        text_cfg = {**self.text_cfg, "vocab_size": size}
        return self.model_copy(update={"vocabulary": vocabulary, "text_cfg": text_cfg})


def _read_vocabulary(path: Path) -> tuple[int, ...]:
    """Token numbers from a JSON list; ValueError names a file that holds anything else."""
    try:
        found = parse_json(read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path}: not a vocabulary: no whole JSON ({error})") from error
    if not isinstance(found, list) or not all(type(number) is int for number in found):
        raise ValueError(f"{path}: not a vocabulary: no JSON list of token numbers")
    return tuple(found)


class ModelSpec(BaseModel):
    """A CLIP to start from: exactly one of `name` and `config`.

    Attributes:
        name: "open_clip:ViT-B-16", "timm:tf_efficientnet_lite0" (image tower; the text tower is
            open_clip's default), "corenet:ViT-B-16", "corenet:FILE", "hf-hub:ORG/NAME",
            "playroom", or a folder (see docs/models.md). Weights behind it, as in
            "open_clip:RN50/openai" and "timm:resnet18.a1_in1k", move to `weights`.
        config: a full description, for small or unusual models.
        weights: for open_clip names a pretraining tag or a local file; for timm names a timm tag
            or a local file of the trunk; else a local file. A tag or a hub name may download;
            without weights the model is random.
        image_weights: local file with weights of the image tower alone (a timm trunk, say).
        pool_pos, output_stride: replace those of the description.
        seed: seeds whatever is initialised at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    config: ClipConfig | None = None
    weights: str | None = None
    image_weights: Path | None = None
    pool_pos: PositionRule | None = None
    output_stride: OutputStride | None = None
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            return given
        name, weights = split_name(given["name"])
        return given if given.get("weights") else {**given, "name": name, "weights": weights}

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if (self.name is None) == (self.config is None):
            raise ValueError("give exactly one of `name` and `config`")
        return self


def spec_of(text: str, output_stride: OutputStride | None = None) -> ModelSpec:
    """The description of what `cliptex.models.clip.load_clip` loads."""
    return ModelSpec(name=text, output_stride=output_stride)


class DenseConfig(BaseModel):
    """Pyramid and task heads beside a CLIP that is trained.

    Width 512, dropout and the 3x3 fusion follow the authors' library, which the paper leaves open.

    Args:
        width: channels of the fused feature map.
        pools: side of the grid that each level of the pyramid pools to.
        norm: normalisation of pyramid and heads.
        dropout: probability of dropping a channel of the fused map.
        head: light has one layer, heavy three (Table 6).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 512
    pools: tuple[int, ...] = (1, 2, 3, 6)
    norm: Norm = "group"
    dropout: float = 0.1
    head: Literal["light", "heavy"] = "light"


@dataclass(frozen=True)
class MaskRcnnForm:
    """Sizes, thresholds and sampling of Mask R-CNN; the defaults are the authors'.

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


GLOBAL = -1
"""Stands for a stride of SSD's levels: the mean over the whole map before."""


@dataclass(frozen=True)
class SsdForm:
    """Levels, priors and thresholds of SSD; the defaults are the authors'.

    strides: of the levels; those that the encoder does not give are made by convolutions of
        stride 2, the last by averaging (-1).
    widths: channels of each level that is made, and of the projections of those that are read.
    ratios: of each level's priors, beside two squares; each stands for itself and its inverse.
    sides: of the smallest priors and of the step after the largest, as shares of the image's.
    iou: overlap from which a prior is positive (every object's best prior always is).
    positive: share of positive priors among those in the loss, so 0.25 for 3 negatives to 1.
    score_threshold, candidates, nms, detections: of the final boxes; candidates per class.
    """

    strides: tuple[int, ...] = (16, 32, 64, 128, 256, GLOBAL)
    widths: tuple[int, ...] = (512, 256, 256, 128, 128, 64)
    ratios: tuple[tuple[int, ...], ...] = ((2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2,))
    sides: tuple[float, float] = (0.1, 1.05)
    iou: float = 0.5
    positive: float = 0.25
    score_threshold: float = 0.01
    candidates: int = 400
    nms: float = 0.5
    detections: int = 200

    def __post_init__(self) -> None:
        if GLOBAL in self.strides[:-1]:
            raise ValueError(f"strides {self.strides}: only the last can be {GLOBAL} (the mean)")

    def single_cells(self, side: int) -> list[int]:
        """Strides of the levels under a norm whose map of pictures of `side` pixels is one cell."""
        return [stride for stride in self.strides if stride != GLOBAL and stride >= side]


PROVENANCE_FILE = "provenance.json"


class Provenance(BaseModel):
    """What a model learnt from beside image-text pairs: the benchmarks behind its experts' labels.

    A training writes it beside its weights, exports and blends carry it on, and a probe on one of
    those benchmarks marks its rows.

    experts: expert -> benchmarks whose images it was trained on, as its label store says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experts: dict[str, tuple[str, ...]] = {}

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """All benchmarks that some expert learnt from, sorted."""
        return tuple(sorted({name for names in self.experts.values() for name in names}))


def merged(parts: Iterable[Provenance]) -> Provenance:
    """Everything that any of `parts` learnt from."""
    experts: dict[str, set[str]] = {}
    for part in parts:
        for expert, benchmarks in part.experts.items():
            experts.setdefault(expert, set()).update(benchmarks)
    return of_experts(experts)


def of_experts(experts: Mapping[str, Iterable[str]]) -> Provenance:
    """Expert -> benchmarks, in a fixed order."""
    return Provenance(experts={name: tuple(sorted(experts[name])) for name in sorted(experts)})


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `folder`/provenance.json, whole or not at all."""
    write_atomic(folder / PROVENANCE_FILE, (provenance.model_dump_json(indent=1) + "\n").encode())


def read_provenance(model: str | Path) -> Provenance:
    """What lies beside the weights of `model`, a folder; empty for names and for other folders.

    Raises ValueError naming a file that is no such record.
    """
    path = Path(model) / PROVENANCE_FILE
    if not path.is_file():
        return Provenance()
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: not a record of what experts learnt from: {error}") from error
