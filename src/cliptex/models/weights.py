"""Weights files: read without pickle, renamed between here and elsewhere, loaded exactly."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_clip.factory import load_state_dict as read_foreign
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.models.spec import Family

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
