"""CLIP models on disk: folders of model.safetensors and model.json, and foreign weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.factory import load_state_dict as read_foreign
from open_clip.model import convert_to_custom_text_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cliptex.files import write_atomic
from cliptex.models.dual import Clip, random_clip
from cliptex.models.spec import OPEN_CLIP, TIMM, ClipConfig, ModelSpec, named_config
from cliptex.models.towers import TimmEncoder

__all__ = ["Clip", "ClipConfig", "ModelSpec", "build_clip", "load_clip", "save_clip"]

FORMAT = "cliptex-clip-1"
PLAYROOM = "playroom"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def build_clip(spec: ModelSpec) -> Clip:
    """The model that `spec` describes; random parts come from `spec.seed` alone.

    Raises ValueError (naming file and key) when weights do not fit. Only a pretraining tag in
    `spec.weights` may reach the network.
    """
    name, weights = spec.name or "", spec.weights
    file = None
    if weights is not None and not name.startswith(TIMM):
        file = _foreign_file(name, weights)  # first, because a wrong tag need not build anything
    if spec.config is not None:
        model = random_clip(spec.config, spec.seed)
    elif name.startswith((OPEN_CLIP, TIMM)):
        model = random_clip(named_config(name), spec.seed)
    else:
        model = _load_folder(_folder(name))
    if file is not None:
        _load_weights(model, file)
    elif weights is not None:
        _load_trunk(model, _timm_weights(name, weights), weights)
    if spec.image_weights is not None:
        path = spec.image_weights
        _load_trunk(model, _read_weights(path), str(path))
    return model


def load_clip(path_or_name: str | Path) -> Clip:
    """A model in evaluation mode, from a `save_clip` folder, or by name.

    Names: "playroom" (shipped), "open_clip:NAME" (random), "open_clip:NAME/TAG_OR_FILE",
    "timm:NAME" (random), "timm:NAME/TAG_OR_FILE".
    """
    text = str(path_or_name)
    if text.startswith((OPEN_CLIP, TIMM)):
        name, _, weights = text.partition("/")
        return build_clip(ModelSpec(name=name, weights=weights or None)).eval()
    return _load_folder(_folder(text)).eval()


def save_clip(model: Clip, folder: Path, dtype: Literal["fp32", "fp16"] = "fp32") -> Path:
    """Write `folder`/model.safetensors and model.json, each atomically; returns `folder`.

    Keys are open_clip's (`visual.`, `text.`), so that open_clip loads the file into its
    CustomTextCLIP of the same configuration. fp16 halves the size and rounds the weights.
    """
    to = _DTYPES[dtype]
    state = {
        key: (value.to(to) if value.is_floating_point() else value).contiguous()
        for key, value in _export_keys(model.state_dict()).items()
    }
    description = {
        "format": FORMAT,
        "dtype": dtype,
        "config": model.config.model_dump(mode="json"),
    }
    write_atomic(folder / "model.safetensors", save(state))
    write_atomic(folder / "model.json", (json.dumps(description, indent=1) + "\n").encode())
    return folder


def _folder(name: str) -> Path:
    if name == PLAYROOM:
        return Path(str(resources.files("cliptex"))) / "playroom" / "weights" / "clip"
    return Path(name)


def _load_folder(folder: Path) -> Clip:
    description = folder / "model.json"
    if not description.is_file():
        raise ValueError(
            f"{description} does not exist: give a folder written by save_clip, 'playroom', "
            f"'open_clip:NAME' or 'timm:NAME'"
        )
    try:
        content = json.loads(description.read_text())
        if content.get("format") != FORMAT:
            raise ValueError(f"{description}: key 'format' is not {FORMAT!r}: save the model again")
        config = ClipConfig.model_validate(content["config"])
    except (json.JSONDecodeError, KeyError, AttributeError, ValidationError) as error:
        raise ValueError(f"{description}: not a model description: {error}") from error
    model = random_clip(config, seed=0)
    _load_weights(model, folder / "model.safetensors")
    return model


def _load_weights(model: Clip, path: Path) -> None:
    """Load a file with open_clip's keys (old, text at the top, or new) into both towers."""
    state = convert_to_custom_text_state_dict(_read_weights(path))
    mine = {
        key: value for key, value in state.items() if not key.startswith("text_decoder.")
    }  # CoCa's captioning decoder is not built
    _load_exactly(model, _import_keys(mine), str(path))


def _load_trunk(model: Clip, state: Mapping[str, Tensor], source: str) -> None:
    """Load an image tower alone; a timm classifier in `state` is left out."""
    encoder = model.image
    trunk = encoder.tower.trunk if isinstance(encoder, TimmEncoder) else encoder.tower
    assert isinstance(trunk, nn.Module)
    wanted = trunk.state_dict()
    classifier = f"{getattr(trunk, 'default_cfg', {}).get('classifier', '-')}."
    fitting = {k: v for k, v in state.items() if k in wanted or not k.startswith(classifier)}
    _load_exactly(trunk, fitting, source)


def _load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module` as float32, or say which key does not fit."""
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    surplus = sorted(state.keys() - wanted.keys())
    if missing or surplus:
        what = "lacks" if missing else "has the unknown"
        raise ValueError(
            f"{source}: {what} key {(missing or surplus)[0]!r} (of {len(missing)} missing and "
            f"{len(surplus)} unknown): the weights belong to another architecture; give the "
            f"configuration that they were saved with"
        )
    for key, value in wanted.items():
        if value.shape != state[key].shape:
            raise ValueError(
                f"{source}: key {key!r} has shape {tuple(state[key].shape)}, the model wants "
                f"{tuple(value.shape)}: give the configuration that the weights were saved with"
            )
    module.load_state_dict(dict(state))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: no weights to load")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = read_foreign(str(path), weights_only=True)
        return dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as weights: {error}") from error


def _foreign_file(name: str, weights: str) -> Path:
    """A local file, or the download of an open_clip tag."""
    if Path(weights).exists() or not name.startswith(OPEN_CLIP):
        return Path(weights)
    short = name.removeprefix(OPEN_CLIP)
    tags = open_clip.list_pretrained_tags_by_model(short)
    if weights not in tags:
        raise ValueError(f"weights {weights!r} of {name}: no such file, and no tag among {tags}")
    preset = open_clip.get_pretrained_cfg(short, weights)
    return Path(open_clip.download_pretrained(preset))


def _timm_weights(name: str, weights: str) -> dict[str, Tensor]:
    """Trunk weights from a local file or by timm tag."""
    if Path(weights).exists():
        return _read_weights(Path(weights))
    import timm

    trunk = timm.create_model(f"{name.removeprefix(TIMM)}.{weights}", pretrained=True)
    return trunk.state_dict()


def _export_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_renamed(k, "image.tower.", "visual."): v for k, v in state.items()}


def _import_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_renamed(k, "visual.", "image.tower."): v for k, v in state.items()}


def _renamed(key: str, old: str, new: str) -> str:
    return new + key.removeprefix(old) if key.startswith(old) else key
