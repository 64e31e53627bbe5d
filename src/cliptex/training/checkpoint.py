"""Checkpoints as folders of safetensors and JSON that are either whole or absent.

    OUT/checkpoints/step-00000500/model.safetensors      parameters and buffers
    OUT/checkpoints/step-00000500/optimizer.safetensors  "KEY.PARAMETER": the optimizer's tensors
    OUT/checkpoints/step-00000500/ema.safetensors        averages of the parameters, if there are
    OUT/checkpoints/step-00000500/state.json             step, and small notes
    OUT/checkpoints/final/                               what the run leaves behind

A folder is written under a temporary name, flushed to the disk and then renamed. Its tensors are
whole, named by parameter and written by rank 0: any number of ranks can go on from it, sharded or
not.
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
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.files import save_tensors
from cliptex.training.parallel import placed_like, whole_tensors
from cliptex.training.state import Ema

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
    keep_best: bool = False,
    notes: Mapping[str, float] | None = None,
    ema: Ema | None = None,
) -> Path:
    """Save everything needed to go on after `step` finished steps; all ranks call it together.

    Of the folders there, the last `keep` remain, and with `keep_best` the one whose note "loss"
    is lowest. Returns the checkpoint's folder, `out`/checkpoints/step-STEP. `notes` come back
    from `load_notes`.
    """
    target = out / CHECKPOINTS / f"{_PREFIX}{step:08d}"
    files = {"model": whole_state(network), "optimizer": _optimizer_tensors(network, optimizer)}
    if ema is not None:
        files["ema"] = ema.tensors()
    if not dist.is_initialized() or dist.get_rank() == 0:
        with new_folder(target) as folder:
            for name, tensors in files.items():
                save_tensors(tensors, folder / f"{name}.safetensors")
            state = {"step": step, "notes": dict(notes or {})}
            (folder / "state.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
        _prune(out, keep, keep_best)
    if dist.is_initialized():
        dist.barrier()
    return target


def load_state(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
) -> int | None:
    """Load the last checkpoint below `out` into all, in place; how many steps it had finished.

    None where there is no checkpoint. Raises ValueError, naming the folder, where it does not
    fit the network.
    """
    found = _checkpoints(out)
    if not found:
        return None
    folder = found[-1]
    try:
        now = network.state_dict()
        saved = load_file(folder / "model.safetensors")
        network.load_state_dict({n: placed_like(t, now.get(n)) for n, t in saved.items()})
        _load_optimizer(network, optimizer, load_file(folder / "optimizer.safetensors"))
        if ema is not None:
            ema.load(load_file(folder / "ema.safetensors"))
        return int(_read_state(folder)["step"])
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: cannot go on from this checkpoint: {error}; remove it to go on from the "
            f"one before, or choose another folder for the run"
        ) from error


def load_notes(out: Path) -> dict[str, float]:
    """The notes of the last checkpoint below `out`; empty where there is none."""
    found = _checkpoints(out)
    return dict(_read_state(found[-1])["notes"]) if found else {}


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """Full parameters and buffers by name, on the CPU of rank 0; all ranks ask together."""
    return whole_tensors(network.state_dict())


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


def _prune(out: Path, keep: int, keep_best: bool) -> None:
    found = _checkpoints(out)
    kept = set(found[-keep:])
    if keep_best:
        kept.add(min(found, key=lambda path: _read_state(path)["notes"].get("loss", float("inf"))))
    for old in found:
        if old not in kept:
            shutil.rmtree(old)


def _optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return whole_tensors(
        {
            f"{key}.{name}": torch.as_tensor(value)
            for name, parameter in network.named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
    )


def _load_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put the tensors where `load_state_dict` expects them: at the number of their parameter."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    members = [p for group in optimizer.param_groups for p in group["params"]]
    keys = {full.split(".", 1)[0] for full in tensors}
    state = {
        number: {
            key: placed_like(tensors[f"{key}.{names[p]}"], p)
            for key in keys
            if f"{key}.{names[p]}" in tensors
        }
        for number, p in enumerate(members)
    }
    known = {number: values for number, values in state.items() if values}
    if sum(map(len, known.values())) != len(tensors):
        raise ValueError("its optimizer has tensors of parameters that the network lacks")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": known})
