"""What a run leaves behind: a CLIP that anything here can load, and beside it the heads."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from cliptex.files import new_folder, save_tensors
from cliptex.models.clip import Clip, save_clip
from cliptex.models.provenance import Provenance, write_provenance
from cliptex.training.checkpoint import CHECKPOINTS, FINAL, whole_state
from cliptex.training.network import Network
from cliptex.training.state import Ema

HEADS = "heads.safetensors"
FINAL_EMA = "final-ema"
_CLIP, _DENSE = "clip.", ("pyramid.", "heads.")


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
