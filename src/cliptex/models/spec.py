"""Which CLIP to build: by name, or by an open_clip-style description; and its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import BaseModel, ConfigDict, model_validator

from cliptex.console import did_you_mean
from cliptex.models.names import OPEN_CLIP, TIMM, split_name

Family = Literal["open_clip", "corenet"]
PositionRule = Literal["grid2d", "flat1d"]
OutputStride = Literal[8, 16, 32]


class ClipConfig(BaseModel):
    """An open_clip model description and what this package adds to it.

    Attributes:
        embed_dim: length of the joint embedding.
        vision_cfg: open_clip's CLIPVisionCfg keys (layers, width, patch_size, image_size, ...;
            timm_model_name for a timm tower).
        text_cfg: open_clip's CLIPTextCfg keys (context_length, width, heads, layers, ...).
        family: "corenet" builds the towers of the CLIPTeX authors' library instead of open_clip's;
            the two descriptions then hold what `cliptex.models.corenet` says.
        quick_gelu: sigmoid approximation of GELU, as OpenAI's weights want.
        init_logit_scale: natural logarithm of the first temperature's inverse.
        init_logit_bias: lets sigmoid-loss checkpoints load; the contrastive loss ignores it.
        conv_stem: replace a ViT's patchify convolution by a convolutional stem.
        pool_pos: how a ResNet's attention pooling, or a corenet tower, stretches its positions to
            other sizes: on the grid, or along the flattened raster as the authors' library does.
            None: grid2d for the one, for the other what its weights were trained with, flat1d.
        output_stride: of a ResNet: 16 or 8 dilates its last one or two stages, so that the dense
            map is finer; the embedding stays as it is. None: the tower's own.
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
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD
    vocabulary: tuple[int, ...] | Path | None = None

    def resolved(self) -> ClipConfig:
        """The same with the vocabulary read from its file and its size put into text_cfg."""
        if self.vocabulary is None:
            return self
        vocabulary = self.vocabulary
        if isinstance(vocabulary, Path):
            vocabulary = tuple(json.loads(vocabulary.read_text()))
        size = len(vocabulary) + 3  # padding, start, end
        stated = self.text_cfg.get("vocab_size", size)
        if stated != size:
            raise ValueError(
                f"text_cfg.vocab_size is {stated}, but a vocabulary of {len(vocabulary)} tokens "
                f"needs {size}: leave vocab_size out"
            )
        text_cfg = {**self.text_cfg, "vocab_size": size}
        return self.model_copy(update={"vocabulary": vocabulary, "text_cfg": text_cfg})


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


def named_config(name: str, tag: str | None = None) -> ClipConfig:
    """The description behind "open_clip:NAME" or "timm:NAME"; ValueError if there is none.

    tag: of pretrained weights, which may want another activation and other colours than the name
    alone says. ValueError, with those that exist, for one that does not.
    """
    if name.startswith(TIMM):
        return _timm_config(name.removeprefix(TIMM), tag)
    short = name.removeprefix(OPEN_CLIP)
    found = open_clip.get_model_config(short)
    if found is None:
        raise ValueError(
            f"model name {name!r}: open_clip knows no {short!r}"
            f"{did_you_mean(short, open_clip.list_models())}; see open_clip.list_models()"
        )
    _check_tag(name, tag, open_clip.list_pretrained_tags_by_model(short))
    preset = open_clip.get_pretrained_cfg(short, tag) if tag else {}
    if preset.get("quick_gelu"):
        found["quick_gelu"] = True
    return from_open_clip(found, preset)


def _check_tag(name: str, tag: str | None, tags: list[str]) -> None:
    if tag and tag not in tags:
        raise ValueError(
            f"weights {tag!r} of {name}: no such file, and no tag among {tags}"
            f"{did_you_mean(tag, tags)}"
        )


def from_open_clip(model: Mapping[str, Any], preprocess: Mapping[str, Any]) -> ClipConfig:
    """The description behind open_clip's `model_cfg` and `preprocess_cfg` (mean and std)."""
    # open_clip marks the class to instantiate in ways that do not matter here: every model is two
    # towers, and the captioning decoder of CoCa takes no part in the contrast.
    known = ("embed_dim", "quick_gelu", "init_logit_scale", "init_logit_bias")
    fields = {key: model[key] for key in known if key in model}
    colours = {key: preprocess[key] for key in ("mean", "std") if preprocess.get(key)}
    vision = {**model["vision_cfg"], "output_tokens": False, "patch_dropout": 0.0}
    vision.pop("timm_model_pretrained", None)
    text = {**model["text_cfg"], "output_tokens": False}
    return ClipConfig.model_validate({"vision_cfg": vision, "text_cfg": text, **fields, **colours})


def _timm_config(name: str, tag: str | None) -> ClipConfig:
    import timm

    if "." in name or not timm.is_model(name):  # is_model would take a tag, whatever it is
        raise ValueError(
            f"model name 'timm:{name}': timm knows no such model"
            f"{did_you_mean(name, timm.list_models())}; see timm.list_models(), and give a tag as "
            f"timm:NAME/TAG"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    _check_tag(f"timm:{name}", tag, tags)
    full = f"{name}.{tag}" if tag else name
    preset = timm.get_pretrained_cfg(full, allow_unregistered=True)
    size = preset.input_size[-1] if preset else 224
    vision = {"timm_model_name": name, "image_size": size, "timm_pool": "", "timm_proj": "linear"}
    colours: dict[str, Any] = {"mean": preset.mean, "std": preset.std} if preset else {}
    return ClipConfig(embed_dim=512, vision_cfg=vision, text_cfg={}, **colours)
