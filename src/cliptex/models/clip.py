"""CLIP models by name and on disk: folders of model.safetensors and model.json, foreign weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import open_clip
import torch
from safetensors.torch import save
from torch import Tensor, nn

from cliptex.console import say
from cliptex.files import sha256_file, sha256_json, write_atomic
from cliptex.files.network import asking_hub, unavailable
from cliptex.models.corenet import CORENET_MODELS, corenet_config
from cliptex.models.dual import Clip, random_clip
from cliptex.models.folders import FORMAT, MODEL_FILE, MODEL_JSON, Stored, find_folder, read_folder
from cliptex.models.names import CORENET, OPEN_CLIP, TIMM
from cliptex.models.spec import ClipConfig, ModelSpec, OutputStride, named_config
from cliptex.models.timm_encoder import TimmEncoder
from cliptex.models.weights import (
    load_exactly,
    own_names,
    read_weights,
    stored_names,
)

__all__ = ["Clip", "ClipConfig", "ModelSpec", "build_clip", "load_clip", "save_clip"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def build_clip(spec: ModelSpec) -> Clip:
    """The model that `spec` describes; random parts come from `spec.seed` alone.

    A name without weights is random, which is said on standard error. Raises ValueError (naming
    file and key) when weights do not fit, and where a tower cannot be built or gives no map. Only a
    pretraining tag in `spec.weights` and a hub name may reach the network.
    """
    name, weights = spec.name or "", spec.weights
    stored = None if spec.config is not None else _stored(name)
    state = None if stored is None else (stored.state, stored.source)
    trunk = None
    config = _config(spec, stored)
    # Weights come first: where they are missing, nothing need be built.
    if weights is not None and name.startswith(TIMM):
        trunk = (_timm_weights(name, weights), weights)
    elif weights is not None:
        file = _foreign_file(name, weights)
        state = (read_weights(file), str(file))
    if name and state is weights is spec.image_weights is None:
        say(f"{name}: random weights (no {'file' if name.startswith(CORENET) else 'tag'})")
    model = random_clip(config, spec.seed)
    if state is not None:
        load_exactly(model, own_names(state[0], config.family), state[1])
    if trunk is not None:
        _load_trunk(model, *trunk)
    if spec.image_weights is not None:
        path = spec.image_weights
        _load_trunk(model, read_weights(path), str(path))
    return model


def describe_clip(spec: ModelSpec) -> ClipConfig:
    """The description of what `build_clip` would build; nothing is built.

    A folder's or a corenet file's weights are read, since the latter's shapes say its sizes; a hub
    name may download. Raises ValueError as `build_clip` does where there is no such model.
    """
    return _config(spec, None if spec.config is not None else _stored(spec.name or ""))


def load_clip(path_or_name: str | Path, output_stride: OutputStride | None = None) -> Clip:
    """A model in evaluation mode, from a folder or by name (docs/models.md lists the sources).

    Folders: of `save_clip`, of open_clip (open_clip_config.json), of Hugging Face's CLIPModel.
    Names: "playroom" (shipped), "open_clip:NAME" (random), "open_clip:NAME/TAG_OR_FILE",
    "timm:NAME" (random), "timm:NAME/TAG_OR_FILE" (or "timm:NAME.TAG"), "corenet:NAME" (random),
    "corenet:FILE", "hf-hub:ORG/NAME", "hf-hub:ORG/NAME@REVISION".

    output_stride: of a ResNet, instead of its own (see `ModelSpec`).
    """
    return build_clip(spec_of(str(path_or_name), output_stride)).eval()


def spec_of(text: str, output_stride: OutputStride | None = None) -> ModelSpec:
    """The description of what `load_clip` loads."""
    return ModelSpec(name=text, output_stride=output_stride)


def save_clip(
    model: Clip,
    folder: Path,
    dtype: Literal["fp32", "fp16"] = "fp32",
    beside: Sequence[str] = (),
) -> Path:
    """Write `folder`/model.safetensors and model.json, each atomically; returns `folder`.

    Keys are open_clip's (`visual.`, `text.`), so that open_clip loads the file into its
    CustomTextCLIP of the same configuration, or those of the authors' library for its models.
    fp16 halves the size and rounds the weights. model.json keeps the sha256 of the weights, of the
    files in `folder` that `beside` names, and of itself; whoever loads them compares.
    """
    to = _DTYPES[dtype]
    state = {
        key: (value.to(to) if value.is_floating_point() else value).contiguous()
        for key, value in stored_names(model.state_dict(), model.config.family).items()
    }
    write_atomic(folder / MODEL_FILE, save(state))
    description: dict[str, object] = {
        "format": FORMAT,
        "dtype": dtype,
        "config": model.config.model_dump(mode="json"),
        "files": {name: sha256_file(folder / name) for name in (MODEL_FILE, *beside)},
    }
    description["sha256"] = sha256_json(description)
    write_atomic(folder / MODEL_JSON, (json.dumps(description, indent=1) + "\n").encode())
    return folder


def _stored(name: str) -> Stored | None:
    """The model on disk that `name` stands for; None for a name that is a description only."""
    if name.startswith((OPEN_CLIP, TIMM)) or name.removeprefix(CORENET) in CORENET_MODELS:
        return None
    if not name.startswith(CORENET):
        return read_folder(find_folder(name))
    file = Path(name.removeprefix(CORENET))
    if not file.is_file():
        raise ValueError(
            f"{name}: no such file, and no model among {sorted(CORENET_MODELS)}: give the file of "
            f"a checkpoint"
        )
    state = read_weights(file)
    return Stored(corenet_config(state, str(file)), state, str(file))


def _config(spec: ModelSpec, stored: Stored | None) -> ClipConfig:
    config = spec.config or (stored.config if stored else _named(spec.name or "", spec.weights))
    asked = {"pool_pos": spec.pool_pos, "output_stride": spec.output_stride}
    return config.model_copy(update={k: v for k, v in asked.items() if v is not None})


def _named(name: str, weights: str | None) -> ClipConfig:
    if name.startswith(CORENET):
        return CORENET_MODELS[name.removeprefix(CORENET)]
    tag = weights if weights is not None and not Path(weights).exists() else None
    return named_config(name, tag)


def _load_trunk(model: Clip, state: Mapping[str, Tensor], source: str) -> None:
    """Load an image tower alone; a timm classifier in `state` is left out."""
    encoder = model.image
    trunk = encoder.tower.trunk if isinstance(encoder, TimmEncoder) else encoder.tower
    assert isinstance(trunk, nn.Module)
    wanted = trunk.state_dict()
    classifier = f"{getattr(trunk, 'default_cfg', {}).get('classifier', '-')}."
    fitting = {k: v for k, v in state.items() if k in wanted or not k.startswith(classifier)}
    load_exactly(trunk, fitting, source)


def _foreign_file(name: str, weights: str) -> Path:
    """A local file, or the download of an open_clip tag."""
    if Path(weights).exists() or not name.startswith(OPEN_CLIP):
        return Path(weights)
    preset = open_clip.get_pretrained_cfg(name.removeprefix(OPEN_CLIP), weights)
    try:
        with asking_hub():
            return Path(open_clip.download_pretrained(preset))
    except Exception as error:
        raise _no_weights(name, weights, error) from error


def _timm_weights(name: str, weights: str) -> dict[str, Tensor]:
    """Trunk weights from a local file or by timm tag."""
    if Path(weights).exists():
        return read_weights(Path(weights))
    import timm

    try:
        with asking_hub():
            trunk = timm.create_model(f"{name.removeprefix(TIMM)}.{weights}", pretrained=True)
    except Exception as error:
        raise _no_weights(name, weights, error) from error
    return trunk.state_dict()


def _no_weights(name: str, tag: str, error: Exception) -> ValueError:
    return unavailable(f"{name}/{tag}: its weights", error, f"; or give a file: {name}/PATH")
