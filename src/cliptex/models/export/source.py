"""What is exported: a CLIP by folder or name, the heads beside it, and where the weights lay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from cliptex.files import sha256_file
from cliptex.models.clip import load_clip
from cliptex.models.cliptex import Cliptex, DenseConfig, build_cliptex
from cliptex.models.dual import Clip
from cliptex.models.folders import MODEL_FILE, check_file, find_folder
from cliptex.models.names import CORENET, HUB, OPEN_CLIP, TIMM
from cliptex.models.weights import load_exactly

HEADS_FILE, RUN_CONFIG = "heads.safetensors", "config.yaml"
_LAST_LAYER = re.compile(r"heads\.([^.]+)\.(?:(\d+)\.)?bias")


@dataclass(frozen=True)
class Checkpoint:
    """A model to export.

    Attributes:
        name: as it was given.
        sha256: of the weights' file, "" where no one file holds them.
        clip: in evaluation mode.
        heads: pyramid and heads around `clip`, where they are asked for.
    """

    name: str
    sha256: str
    clip: Clip
    heads: Cliptex | None = None


def load_checkpoint(name: str, *, heads: bool) -> Checkpoint:
    """Load `name`, which is anything that `load_clip` takes; `heads` asks for the heads, too.

    Raises ValueError where the heads are not there or do not fit.
    """
    clip = load_clip(name)
    return Checkpoint(name, _sha256(name), clip, _heads(name, clip) if heads else None)


def _sha256(name: str) -> str:
    for prefix in (OPEN_CLIP, TIMM):
        if name.startswith(prefix):
            file = Path(name.partition("/")[2])
            break
    else:
        if name.startswith(HUB):
            return ""
        file = Path(name.removeprefix(CORENET))
        file = file if name.startswith(CORENET) else find_folder(name) / MODEL_FILE
    return sha256_file(file) if file.is_file() else ""


def _heads(name: str, clip: Clip) -> Cliptex:
    file = Path(name) / HEADS_FILE
    if not file.is_file():
        raise ValueError(
            f"{name}: has no {HEADS_FILE}: only RUN/checkpoints/final of a run with tasks has "
            f"heads; export without them"
        )
    check_file(Path(name), HEADS_FILE)
    state = load_file(file)
    channels = _channels(state, file)
    model = build_cliptex(clip, channels, _dense(Path(name)), seed=0).eval()
    own = {key for key in model.state_dict() if not key.startswith("clip.")}
    rest = model.state_dict()
    load_exactly(model, {**{k: v for k, v in rest.items() if k not in own}, **state}, str(file))
    return model


def _channels(state: Mapping[str, Tensor], file: Path) -> dict[str, int]:
    """Task -> outputs: the length of the last layer's bias."""
    last: dict[str, tuple[int, int]] = {}
    for key, value in state.items():
        match = _LAST_LAYER.fullmatch(key)
        if match:
            task, layer = match[1], int(match[2] or 0)
            last[task] = max(last.get(task, (-1, 0)), (layer, len(value)))
    if not last:
        raise ValueError(f"{file}: no key heads.TASK.bias: not the heads of a run")
    return {task: outputs for task, (_, outputs) in sorted(last.items())}


def _dense(folder: Path) -> DenseConfig:
    """Form of pyramid and heads, from the configuration of the run that `folder` lies in."""
    file = folder.resolve().parents[1] / RUN_CONFIG
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist: the heads in {folder} cannot be rebuilt without the run's "
            f"configuration; export RUN/checkpoints/final where the run lies"
        )
    try:
        return DenseConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))["dense"])
    except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise ValueError(f"{file}: key 'dense' does not describe heads: {error}") from error
