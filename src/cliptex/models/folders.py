"""Folders and hub repositories that hold a CLIP: our own, open_clip's, and `CLIPModel`'s."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from torch import Tensor

from cliptex.console import did_you_mean
from cliptex.files import load_json, sha256_file, sha256_json
from cliptex.files.network import OFFLINE, asking_hub, unavailable
from cliptex.models.hf import config_from_hf, state_from_hf
from cliptex.models.names import HUB
from cliptex.models.spec import ClipConfig, from_open_clip
from cliptex.models.weights import read_weights

_MODEL = "a model description"
FORMAT = "cliptex-clip-1"
PLAYROOM = "playroom"
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

    Raises ValueError where a hub repository cannot be had.
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
