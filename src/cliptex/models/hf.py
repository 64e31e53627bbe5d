"""Hugging Face `CLIPModel`: its configuration and parameter names, to open_clip's and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from cliptex.models.config import ClipConfig

_Pair = tuple[str, str]
_BLOCKS = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("text.transformer.resblocks.", "text_model.encoder.layers."),
)
_INNER = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
_OUTER = (
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),  # their spelling
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("text.token_embedding.", "text_model.embeddings.token_embedding."),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.ln_final.", "text_model.final_layer_norm."),
    ("text.text_projection", "text_projection.weight"),
)
_TRANSPOSED = ("visual.proj", "text.text_projection")
_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
_BOTH = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_LEGACY_END = 2  # written by old versions, whose pooling took the largest id


def config_from_hf(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], source: str
) -> ClipConfig:
    """The description behind a `CLIPModel`'s config.json and preprocessor_config.json.

    Raises ValueError, naming `source` and the key, for what open_clip's towers cannot be.
    """
    kind = config.get("model_type")
    if kind != "clip":
        timm = config.get("architecture")  # their configurations have no model_type
        hint = f"; timm's models are called timm:NAME/TAG, here timm:{timm}" if timm else ""
        raise ValueError(f"{source}: model_type is {kind!r}: only 'clip' can be loaded{hint}")
    vision, text = _part(config, "vision", _VISION), _part(config, "text", _TEXT)
    activations = {vision["hidden_act"], text["hidden_act"]}
    if len(activations) > 1 or not activations <= {"gelu", "quick_gelu"}:
        raise ValueError(
            f"{source}: hidden_act is {sorted(activations)}: both towers must have the same, gelu "
            f"or quick_gelu"
        )
    end = text["eos_token_id"]
    if end not in (_LEGACY_END, text["vocab_size"] - 1):
        raise ValueError(
            f"{source}: text_config.eos_token_id is {end}, which is not the vocabulary's last "
            f"({text['vocab_size'] - 1}): the text tower reads at the largest id"
        )
    fields = {"mean": preprocessor.get("image_mean"), "std": preprocessor.get("image_std")}
    return ClipConfig.model_validate(
        {
            "embed_dim": config.get("projection_dim", 512),
            "vision_cfg": _vision_cfg(vision),
            "text_cfg": _text_cfg(text),
            "quick_gelu": activations == {"quick_gelu"},
            **{key: value for key, value in fields.items() if value},
        }
    )


def _vision_cfg(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_sizes(part),
        "head_width": part["hidden_size"] // part["num_attention_heads"],
        "patch_size": part["patch_size"],
        "image_size": part["image_size"],
    }


def _text_cfg(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_sizes(part),
        "heads": part["num_attention_heads"],
        "context_length": part["max_position_embeddings"],
        "vocab_size": part["vocab_size"],
    }


def _part(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's values; the older files' second dictionary wins, as in the library."""
    given = (config.get(f"{name}_config"), config.get(f"{name}_config_dict"))
    merged = {**_BOTH, **defaults}
    for values in given:
        merged.update(values or {})
    return merged


def _sizes(part: Mapping[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "width": part["hidden_size"],
        "layers": part["num_hidden_layers"],
        "mlp_ratio": _ratio(part["hidden_size"], part["intermediate_size"]),
    }
    if part["layer_norm_eps"] != _BOTH["layer_norm_eps"]:
        sizes["norm_kwargs"] = {"eps": part["layer_norm_eps"]}
    return sizes


def _ratio(width: int, hidden: int) -> float:
    """hidden / width, rounded so that open_clip's int(width * ratio) is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def state_from_hf(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`CLIPModel`'s parameters under open_clip's names; ValueError for one that is not known."""
    names = [(theirs, ours) for ours, theirs in (*_BLOCKS, *_OUTER)]
    inner = [(theirs, ours) for ours, theirs in _INNER]
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".position_ids"):  # a table 0, 1, 2, ... of old files
            continue
        if key == "logit_scale":
            result[key] = value
            continue
        renamed = _renamed(key, names, inner)
        if renamed is None:
            raise ValueError(f"{source}: unknown key {key!r}: not the weights of a CLIPModel")
        if ".self_attn." in renamed:
            stem, _, part = renamed.partition(".self_attn.")
            letter, _, kind = part.partition("_proj.")
            if letter == "q":
                others = (key.replace("q_proj", f"{x}_proj") for x in "kv")
                parts = [value, *(_get(state, other, source) for other in others)]
                result[f"{stem}.attn.in_proj_{kind}"] = torch.cat(parts)
        else:
            result[renamed] = value.T.contiguous() if renamed in _TRANSPOSED else value
    return result


def _get(state: Mapping[str, Tensor], key: str, source: str) -> Tensor:
    if key not in state:
        raise ValueError(f"{source}: lacks key {key!r}: not the weights of a CLIPModel")
    return state[key]


def state_to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names (on disk) -> `CLIPModel`'s; all must be those of a plain ViT CLIP."""
    names = (*_BLOCKS, *_OUTER)
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        renamed = key if key == "logit_scale" else _renamed(key, names, _INNER)
        assert renamed is not None, key
        if ".attn.in_proj_" in renamed:
            stem, _, kind = renamed.partition(".attn.in_proj_")
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                result[f"{stem}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
        else:
            result[renamed] = value.T.contiguous() if key in _TRANSPOSED else value.contiguous()
    return result


def _renamed(key: str, names: Iterable[_Pair], inner: Iterable[_Pair]) -> str | None:
    for old, new in names:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            for part, other in inner:
                key = key.replace(part, other)
            return key
    return None


def config_to_hf(config: ClipConfig) -> dict[str, Any]:
    """config.json of a `CLIPModel` of the same architecture (a plain ViT CLIP, see `export`)."""
    vision, text = config.vision_cfg, config.text_cfg
    activation = "quick_gelu" if config.quick_gelu else "gelu"
    common = {"hidden_act": activation, "layer_norm_eps": 1e-5, "projection_dim": config.embed_dim}
    width = vision.get("width", 768)
    text_width = text.get("width", 512)
    vocabulary = text.get("vocab_size", 49408)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.init_logit_scale,
        "text_config": {
            **common,
            "model_type": "clip_text_model",
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": 0,
        },
        "vision_config": {
            **common,
            "model_type": "clip_vision_model",
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "image_size": vision.get("image_size", 224),
            "patch_size": vision.get("patch_size", 16),
        },
    }
