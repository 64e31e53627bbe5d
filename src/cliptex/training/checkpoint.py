"""Checkpoints as folders of safetensors and JSON that are either whole or absent.

    OUT/checkpoints/step-00000500/model.safetensors      parameters and buffers
    OUT/checkpoints/step-00000500/optimizer.safetensors  "KEY.PARAMETER": the optimizer's tensors
    OUT/checkpoints/step-00000500/ema.safetensors        averages of the parameters, if there are
    OUT/checkpoints/step-00000500/state.json             step, small notes, sha256 of every file
    OUT/checkpoints/damaged-00000500/                    one that does not hold what it says
    OUT/checkpoints/final/                               what the run leaves behind

The newest whole checkpoint is where a run goes on: there is no pointer that could be wrong. A
checkpoint is whole if state.json and every file that it names have their sha256, whatever those
files are. A folder is written under a temporary name, flushed to the disk and then renamed. Its
tensors are whole, named by parameter and written by rank 0: any number of ranks can go on from it,
sharded or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.console import warn
from cliptex.files import (
    new_folder,
    parse_json,
    remove_whole,
    save_tensors,
    sha256_file,
    sha256_json,
)
from cliptex.models.clip import Clip, save_clip
from cliptex.models.config import Provenance, write_provenance
from cliptex.training.network import Network
from cliptex.training.optimizer import Ema
from cliptex.training.parallel import placed_like, whole_tensors

CHECKPOINTS = "checkpoints"
FINAL, FINAL_EMA = "final", "final-ema"
HEADS = "heads.safetensors"
KEEP = 2  # the one before is there where the last does not hold
_PREFIX, _DAMAGED = "step-", "damaged-"
_STATE = "state.json"
_CLIP, _DENSE = "clip.", ("pyramid.", "heads.")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was loaded: how many steps it had finished, and its notes."""

    step: int
    notes: Mapping[str, float]


def save_state(
    out: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    keep: int = KEEP,
    keep_best: bool = False,
    notes: Mapping[str, float] | None = None,
    ema: Ema | None = None,
) -> Path:
    """Save everything needed to go on after `step` finished steps; all ranks call it together.

    Of the folders there, the last `keep` remain, and with `keep_best` the one whose note "loss"
    is lowest. Returns the checkpoint's folder, `out`/checkpoints/step-STEP. `notes` come back
    from `load_state`.
    """
    target = out / CHECKPOINTS / f"{_PREFIX}{step:08d}"
    files = {"model": whole_state(network), "optimizer": _optimizer_tensors(network, optimizer)}
    if ema is not None:
        files["ema"] = ema.tensors()
    if not dist.is_initialized() or dist.get_rank() == 0:
        with new_folder(target) as folder:
            for name, tensors in files.items():
                save_tensors(tensors, folder / f"{name}.safetensors")
            _write_state(folder, step, notes or {})
        _prune(out, keep, keep_best)
    if dist.is_initialized():
        dist.barrier()
    return target


def load_state(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None
) -> Saved | None:
    """Load the newest whole checkpoint below `out` into all, in place; all ranks call together.

    None where there is no checkpoint. Damaged ones that are newer are renamed to damaged-STEP and
    named on standard error. Raises ValueError where there are checkpoints and none is whole, and,
    naming the folder, where one does not fit the network.
    """
    folder = _newest_whole(out)
    if folder is None:
        return None
    try:
        now = network.state_dict()
        saved = load_file(folder / "model.safetensors")
        network.load_state_dict({n: placed_like(t, now.get(n)) for n, t in saved.items()})
        _load_optimizer(network, optimizer, load_file(folder / "optimizer.safetensors"))
        if ema is not None:
            ema.load(load_file(folder / "ema.safetensors"))
        state = _read_state(folder)
        return Saved(int(state["step"]), dict(state["notes"]))
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder}: cannot go on from this checkpoint: {error}; remove it to go on from the "
            f"one before, or choose another folder for the run"
        ) from error


def has_checkpoint(out: Path) -> bool:
    """Whether a run in `out` has anything to show for its steps, damaged or not."""
    folder = out / CHECKPOINTS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(name.startswith((_PREFIX, _DAMAGED, FINAL)) for name in names)


def whole_state(network: nn.Module) -> dict[str, Tensor]:
    """Full parameters and buffers by name, on the CPU of rank 0; all ranks ask together."""
    return whole_tensors(network.state_dict())


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / CHECKPOINTS).glob(f"{_PREFIX}*"))


def _write_state(folder: Path, step: int, notes: Mapping[str, float]) -> None:
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    state = {"step": step, "notes": dict(notes), "files": files}
    text = json.dumps({**state, "sha256": sha256_json(state)}, indent=1)
    (folder / _STATE).write_text(text + "\n", encoding="utf-8")


def _read_state(folder: Path) -> dict[str, Any]:
    return parse_json((folder / _STATE).read_bytes())


def _newest_whole(out: Path) -> Path | None:
    """The checkpoint to go on from, as rank 0 finds it; the damaged ones after it are set aside."""
    told: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            told = [_choose(out)]
        except (ValueError, OSError) as error:
            told = [error]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def _choose(out: Path) -> Path | None:
    damaged: dict[Path, str] = {}
    for folder in reversed(_checkpoints(out)):
        if not (problem := _problem(folder)):
            for worse, why in damaged.items():
                aside = worse.with_name(worse.name.replace(_PREFIX, _DAMAGED, 1))
                if aside.exists():
                    remove_whole(aside)
                worse.rename(aside)
                warn(f"{why}; renamed to {aside.name}; going on from {folder}")
            return folder
        damaged[folder] = problem
    if not damaged:
        return None
    raise ValueError(
        f"{'; '.join(damaged.values())}; no checkpoint is whole: restore the file, or remove "
        f"{out / CHECKPOINTS} to start again"
    )


def _problem(folder: Path) -> str:
    """What is wrong with a checkpoint, by the name of its file; empty where it is whole.

    Those of earlier versions have no hashes; only their state.json is read.
    """
    try:
        state = _read_state(folder)
        if state["step"] != int(folder.name.removeprefix(_PREFIX)):
            return f"{folder / _STATE}: damaged (it is of step {state['step']})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder / _STATE}: damaged ({error})"
    if set(state) == {"step", "notes"}:
        return ""
    digest = state.pop("sha256", None)
    if digest != sha256_json(state):
        return f"{folder / _STATE}: damaged (its sha256 is not the one that it names)"
    for name, expected in state["files"].items():
        try:
            if sha256_file(folder / name) != expected:
                return f"{folder / name}: damaged (its sha256 is not the one in {_STATE})"
        except OSError as error:
            return f"{folder / name}: cannot be read ({error.strerror})"
    return ""


def _prune(out: Path, keep: int, keep_best: bool) -> None:
    found = _checkpoints(out)
    kept = set(found[-keep:])
    if keep_best:
        kept.add(min(found, key=_loss_of))
    for old in found:
        if old not in kept:
            remove_whole(old)


def _loss_of(folder: Path) -> float:
    try:
        return _read_state(folder)["notes"].get("loss", math.inf)
    except (OSError, ValueError, KeyError, TypeError):  # damaged, and therefore not the best
        return math.inf


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


def save_final(
    model: Network, out: Path, ema: Ema | None = None, provenance: Provenance | None = None
) -> Path:
    """Write `out`/checkpoints/final, whole or not at all, and return it; all ranks call together.

    model.safetensors and model.json are the CLIP's. heads.safetensors, written where there were
    tasks, holds the pyramid and the heads by their names in `Cliptex`. The same for the averages
    of `ema` comes first, in `final-ema`. `provenance` is written beside both.
    """
    if ema is not None:
        with ema.in_place():
            _write(model, out / CHECKPOINTS / FINAL_EMA, provenance)
    return _write(model, out / CHECKPOINTS / FINAL, provenance)


def _write(model: Network, target: Path, provenance: Provenance | None) -> Path:
    state = whole_state(model)
    if not dist.is_initialized() or dist.get_rank() == 0:
        with new_folder(target) as folder:
            rest = {name: t for name, t in state.items() if name.startswith(_DENSE)}
            if rest:
                save_tensors(rest, folder / HEADS)
            save_clip(_whole_clip(model.clip, state), folder, beside=(HEADS,) if rest else ())
            if provenance is not None:
                write_provenance(folder, provenance)
    if dist.is_initialized():
        dist.barrier()
    return target


def _whole_clip(clip: Clip, state: dict[str, Tensor]) -> Clip:
    """A Clip of the same description around full tensors, whatever holds the weights now."""
    with torch.device("meta"):
        copy = Clip(clip.config)
    mine = {n.removeprefix(_CLIP): t for n, t in state.items() if n.startswith(_CLIP)}
    copy.load_state_dict(mine, assign=True)
    return copy
