"""What a run leaves behind: a CLIP that anything here can load, and beside it the heads."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from cliptex.models.clip import save_clip
from cliptex.training.checkpoint import CHECKPOINTS, FINAL, new_folder
from cliptex.training.network import Network

HEADS = "heads.safetensors"
_CLIP = "clip."


def save_final(model: Network, out: Path) -> Path:
    """Write `out`/checkpoints/final, whole or not at all, and return it.

    model.safetensors and model.json are the CLIP's. heads.safetensors, written where there were
    tasks, holds the pyramid and the heads by their names in `Cliptex`.
    """
    final = out / CHECKPOINTS / FINAL
    with new_folder(final) as folder:
        save_clip(model.clip, folder)
        rest = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in model.state_dict().items()
            if not name.startswith(_CLIP)
        }
        if rest:
            save_file(rest, folder / HEADS)
    return final
