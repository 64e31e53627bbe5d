"""Weights between those of two CLIPs: how much of each is wanted can be chosen after training.

Weights of a model and of what it became by fine-tuning can be averaged, and what lies between them
often keeps more of the old skills than it loses of the new ones (Wortsman et al. 2022, WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cliptex.files import check_can_make
from cliptex.models.clip import Clip, load_clip, save_clip
from cliptex.models.config import merged, read_provenance, write_provenance

_FREE = ("init_logit_scale", "init_logit_bias")  # of a description: what training replaces


def blend_name(alpha: float) -> str:
    """What a blend is called, as a folder and in results: `blend-0.25`."""
    return f"blend-{alpha:g}"


def blend(start: str, end: str, alphas: Sequence[float], out: Path) -> list[Path]:
    """Write (1 - alpha) `start` + alpha `end` for every alpha, as folders of `save_clip` in `out`.

    start, end: anything that `load_clip` takes, of one architecture. At 0 and 1 the weights are
    those of `start` and `end` to the bit. Running statistics of batch norms are averaged, too.

    Raises ValueError for alphas outside [0, 1], and where the two are no models of one description.
    """
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise ValueError(f"alpha: give one or more numbers from 0 to 1, not {list(alphas)}")
    check_can_make(out, "the folder of the blends")
    first, last = load_clip(start), load_clip(end)
    _check(first, last, start, end)
    before = first.state_dict()
    after = {name: tensor.clone() for name, tensor in last.state_dict().items()}
    records = [read_provenance(name) for name in (start, end)]
    folders = []
    for alpha in alphas:
        last.load_state_dict(interpolate(before, after, alpha))
        folder = save_clip(last, out / blend_name(alpha))
        used = records[:1] if alpha == 0 else records[1:] if alpha == 1 else records
        write_provenance(folder, merged(used))
        folders.append(folder)
    return folders


def interpolate(
    before: dict[str, Tensor], after: dict[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Tensors between two state dictionaries of the same names; whole numbers are not averaged."""
    return {
        name: torch.lerp(tensor, after[name], alpha)
        if tensor.is_floating_point()
        else (tensor if alpha == 0 else after[name])
        for name, tensor in before.items()
    }


def _check(first: Clip, last: Clip, start: str, end: str) -> None:
    one, other = first.config.model_dump(), last.config.model_dump()
    differing = [key for key in one if key not in _FREE and one[key] != other[key]]
    if first.state_dict().keys() != last.state_dict().keys():
        differing.append("names of weights")
    if differing:
        raise ValueError(
            f"{start} and {end} differ in {', '.join(differing)}: only weights of one architecture "
            "can be blended, such as a model and what was trained from it"
        )
