"""Where a model comes from: names, folders, hub repositories and files of weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from open_clip.factory import load_state_dict as read_foreign
from open_clip.model import convert_to_custom_text_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.console import did_you_mean
from cliptex.files import load_json, sha256_file, sha256_json
from cliptex.files.network import OFFLINE, asking_hub, unavailable
from cliptex.models.config import HUB, OPEN_CLIP, PLAYROOM, TIMM, ClipConfig, Family
from cliptex.models.hf import config_from_hf, state_from_hf

_MODEL = "a model description"
FORMAT = "cliptex-clip-1"
MODEL_JSON, MODEL_FILE = "model.json", "model.safetensors"
OPEN_CLIP_JSON, HF_JSON = "open_clip_config.json", "config.json"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HF_FILES = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR_JSON = "preprocessor_config.json"


class Stored(NamedTuple):
    """A model on disk: its description, its tensors under names on disk, and where they lay."""

    config: ClipConfig
    state: dict[str, Tensor]
    source: str


def find_folder(name: str) -> Path:
    """The folder that a model's name stands for; a hub name may download its files into the cache.

    Raises ValueError where a hub repository cannot be downloaded.
    """
    if name == PLAYROOM:
        return Path(str(resources.files("cliptex"))) / "playroom" / "weights" / "clip"
    if name.startswith(HUB):
        return _hub_folder(name)
    return Path(name)


def read_folder(folder: Path) -> Stored:
    """Read the model in `folder`; ValueError names the file, what is wrong with it and a remedy."""
    for file, read in ((MODEL_JSON, _own), (OPEN_CLIP_JSON, _open_clip), (HF_JSON, _hugging_face)):
        if (folder / file).is_file():
            return read(folder)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file, and weights alone do not say their architecture: give "
            f"'open_clip:NAME/{folder}', or 'corenet:{folder}' for the authors' checkpoints"
        )
    named = (PLAYROOM, "open_clip", "timm", "corenet", "hf-hub")
    meant = did_you_mean(str(folder).partition(":")[0], named)
    raise ValueError(
        f"{folder / MODEL_JSON} does not exist, nor {OPEN_CLIP_JSON} nor {HF_JSON}: give the "
        f"folder of a saved model, 'playroom', 'open_clip:NAME', 'timm:NAME', 'corenet:FILE' or "
        f"'hf-hub:ORG/NAME'{meant}"
    )


def _own(folder: Path) -> Stored:
    description = folder / MODEL_JSON
    content = load_json(description, _MODEL)
    if content.get("format") != FORMAT:
        raise ValueError(f"{description}: key 'format' is not {FORMAT!r}: save the model again")
    check_file(folder, MODEL_FILE)
    try:
        config = ClipConfig.model_validate(content["config"])
    except (KeyError, ValidationError) as error:
        raise ValueError(f"{description}: not a model description: {error}") from error
    weights = folder / MODEL_FILE
    return Stored(config, read_weights(weights), str(weights))


def check_file(folder: Path, name: str) -> None:
    """ValueError where `folder`/`name`, or model.json beside it, is not what model.json says.

    Models of earlier versions say nothing, nor do folders without a model.json.
    """
    description = folder / MODEL_JSON
    content = load_json(description, _MODEL) if description.is_file() else {}
    digest = content.pop("sha256", None)
    if digest is None and "files" not in content:
        return
    if digest != sha256_json(content):
        raise ValueError(
            f"{description}: damaged or changed since it was written: restore it, or where the "
            "change is meant, take its keys 'sha256' and 'files' out"
        )
    wanted = content.get("files", {}).get(name)
    if wanted is not None and (folder / name).is_file() and sha256_file(folder / name) != wanted:
        raise ValueError(
            f"{folder / name}: damaged: it has not the sha256 that {MODEL_JSON} names: restore it, "
            "or remove the folder and go on with the run that wrote it"
        )


def _open_clip(folder: Path) -> Stored:
    description = folder / OPEN_CLIP_JSON
    content = load_json(description, _MODEL)
    try:
        config = from_open_clip(
            content.get("model_cfg", content), content.get("preprocess_cfg", {})
        )
    except (KeyError, ValidationError, TypeError) as error:
        raise ValueError(f"{description}: not an open_clip description: {error}") from error
    weights = _first(folder, OPEN_CLIP_FILES)
    return Stored(config, read_weights(weights), str(weights))


def _hugging_face(folder: Path) -> Stored:
    description, preprocessor = folder / HF_JSON, folder / PREPROCESSOR_JSON
    colours = load_json(preprocessor, _MODEL) if preprocessor.is_file() else {}
    config = config_from_hf(load_json(description, _MODEL), colours, str(description))
    weights = _first(folder, HF_FILES)
    return Stored(config, state_from_hf(read_weights(weights), str(weights)), str(weights))


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of `names` that exists, else the first, about which the reader will complain."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _hub_folder(name: str) -> Path:
    """The cached snapshot of "hf-hub:ORG/NAME" or "hf-hub:ORG/NAME@REVISION"."""
    config = _from_hub(name, (OPEN_CLIP_JSON, HF_JSON))
    if config.name == OPEN_CLIP_JSON:
        _from_hub(name, OPEN_CLIP_FILES)
    else:
        _from_hub(name, HF_FILES)
        with suppress(ValueError):  # only colours, which have a default
            _from_hub(name, (PREPROCESSOR_JSON,))
    return config.parent


def _from_hub(name: str, files: tuple[str, ...]) -> Path:
    """The first of `files` that the repository has; once it cannot be reached, that are cached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.removeprefix(HUB).partition("@")
    unreached = False  # each attempt to reach the hub takes many seconds
    for file in files:
        try:
            with asking_hub():
                found = hf_hub_download(
                    repository, file, revision=revision or None, local_files_only=unreached
                )
            return Path(found)
        except LocalEntryNotFoundError:
            unreached = True
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError) as error:
            raise ValueError(f"{name}: the hub refuses {file}: {error}") from error
        except Exception as error:  # of the network libraries, which share no base
            raise unavailable(f"{name}: {file}", error) from error
    what = " nor ".join(files)
    if unreached:
        raise ValueError(
            f"{name}: the hub cannot be reached, and no {what} is in the local cache: {OFFLINE}"
        )
    raise ValueError(f"{name}: no {what} in the repository: check the name")


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


# (name in a Clip, name on disk): open_clip's names, or those of the authors' library.
_NAMES: Mapping[Family, tuple[tuple[str, str], ...]] = {
    "open_clip": (("image.tower.", "visual."),),
    "corenet": (("image.tower.", "image_encoder."), ("text.", "text_encoder.")),
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a .pt or .bin file (weights_only).

    Raises ValueError, naming the file, for anything that is not a plain dictionary of tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: no weights to load")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        foreign: Any = read_foreign(str(path), weights_only=True)
        state: dict[str, Any] = dict(foreign)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: cannot be read as weights: it holds more than tensors, which could run code "
            f"when loaded: save its state dict as safetensors where you trust it"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as weights: {error}") from error
    except (StopIteration, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as weights: no dictionary of tensors") from error
    wrong = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"{path}: key {wrong[0]!r} holds no tensor: save the model's state dict alone"
        )
    return state


def stored_names(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Names of a Clip's state dict -> names on disk."""
    return {_renamed(k, [(own, disk) for own, disk in _NAMES[family]]): v for k, v in state.items()}


def own_names(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Names on disk -> names of a Clip's state dict.

    open_clip's old layout (text tower at the top) is taken as well; what is no part of two towers
    (CoCa's captioning decoder, a table of position numbers) is left out.
    """
    if family == "open_clip":
        state = convert_to_custom_text_state_dict(dict(state))
        state = {k: v for k, v in state.items() if not _left_out(k)}
        for key in ("logit_scale", "logit_bias"):  # some libraries keep them as (1,)
            if key in state and state[key].shape == (1,):
                state[key] = state[key].reshape(())
    return {_renamed(k, [(disk, own) for own, disk in _NAMES[family]]): v for k, v in state.items()}


def _left_out(key: str) -> bool:
    return key.startswith("text_decoder.") or key == "text.transformer.embeddings.position_ids"


def _renamed(key: str, names: list[tuple[str, str]]) -> str:
    for old, new in names:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module` in its dtypes, or say which key of `source` does not fit."""
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


def find_weights(name: str, weights: str) -> Path:
    """A local file, or the download of an open_clip tag."""
    if Path(weights).exists() or not name.startswith(OPEN_CLIP):
        return Path(weights)
    preset = open_clip.get_pretrained_cfg(name.removeprefix(OPEN_CLIP), weights)
    try:
        with asking_hub():
            return Path(open_clip.download_pretrained(preset))
    except Exception as error:
        raise _no_weights(name, weights, error) from error


def find_trunk_weights(name: str, weights: str) -> dict[str, Tensor]:
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
