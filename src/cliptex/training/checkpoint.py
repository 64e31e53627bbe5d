"""Checkpoints as folders of safetensors and JSON that are either whole or absent.

    OUT/checkpoints/step-00000500/model.safetensors      parameters and buffers
    OUT/checkpoints/step-00000500/optimizer.safetensors  "INDEX.KEY": the optimizer's tensors
    OUT/checkpoints/step-00000500/state.json             step, and small notes
    OUT/checkpoints/final/                               what the run leaves behind

A folder is written under a temporary name, flushed to the disk and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINTS = "checkpoints"
FINAL = "final"
_PREFIX = "step-"


def save_state(
    out: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    keep: int = 1,
    notes: Mapping[str, int] | None = None,
) -> Path:
    """Save everything needed to go on after `step` finished steps; keep the last `keep`.

    Returns the checkpoint's folder, `out`/checkpoints/step-STEP. `notes` come back from
    `load_notes`.
    """
    target = out / CHECKPOINTS / f"{_PREFIX}{step:08d}"
    with new_folder(target) as folder:
        save_file(_contiguous(network.state_dict()), folder / "model.safetensors")
        save_file(_contiguous(_optimizer_tensors(optimizer)), folder / "optimizer.safetensors")
        state = {"step": step, "notes": dict(notes or {})}
        (folder / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
    for old in _checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return target


def load_state(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int | None:
    """Load the last checkpoint below `out` into both, in place; how many steps it had finished.

    None where there is no checkpoint. Raises ValueError, naming the folder, where it does not
    fit the network.
    """
    found = _checkpoints(out)
    if not found:
        return None
    folder = found[-1]
    try:
        network.load_state_dict(load_file(folder / "model.safetensors"))
        _load_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        return int(_read_state(folder)["step"])
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: cannot go on from this checkpoint: {error}; remove it to go on from the "
            f"one before, or choose another folder for the run"
        ) from error


def load_notes(out: Path) -> dict[str, int]:
    """The notes of the last checkpoint below `out`; empty where there is none."""
    found = _checkpoints(out)
    return dict(_read_state(found[-1])["notes"]) if found else {}


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill, which replaces `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.*.tmp"):  # of a run that was killed
        shutil.rmtree(stale)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / CHECKPOINTS).glob(f"{_PREFIX}*"))


def _read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in state.items()
        for key, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
