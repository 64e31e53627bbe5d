"""A probe's training on disk: one safetensors file, whole or absent, with its JSON inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cliptex.files import write_atomic

if TYPE_CHECKING:
    from cliptex.probes.detection.train import Candidate

KEY = "cliptex_probe"


def save_state(
    path: Path, candidates: Sequence[Candidate], step: int, identity: Mapping[str, object]
) -> None:
    """Weights, buffers and optimisers of all heads after `step` steps, in one atomic write."""
    tensors: dict[str, Tensor] = {}
    for number, candidate in enumerate(candidates):
        for name, tensor in candidate.head.state_dict().items():
            tensors[f"{number}.head.{name}"] = tensor.detach().cpu().contiguous()
        for index, moments in candidate.optimizer.state_dict()["state"].items():
            for name, tensor in moments.items():
                tensors[f"{number}.optimizer.{index}.{name}"] = tensor.detach().cpu().contiguous()
    about = {
        "step": step,
        "diverged": [candidate.diverged for candidate in candidates],
        "identity": identity,
    }
    write_atomic(path, save(tensors, {KEY: json.dumps(about, sort_keys=True)}))


def load_state(path: Path, candidates: Sequence[Candidate], identity: Mapping[str, object]) -> int:
    """Put a saved state into `candidates`; returns the number of steps it has behind it.

    ValueError where it was saved by a probe of another configuration, encoder or data set.
    """
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get(KEY, "{}"))
        _refuse_other(path, about.get("identity", {}), json.loads(json.dumps(identity)))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for number, candidate in enumerate(candidates):
        candidate.head.load_state_dict(_below(tensors, f"{number}.head."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(tensors, f"{number}.optimizer.").items():
            index, moment = name.split(".")
            state.setdefault(int(index), {})[moment] = tensor
        groups = candidate.optimizer.state_dict()["param_groups"]
        candidate.optimizer.load_state_dict({"state": state, "param_groups": groups})
        candidate.diverged = about["diverged"][number]
    return int(about["step"])


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _refuse_other(path: Path, saved: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    differing = [k for k in {*saved, *wanted} if saved.get(k) != wanted.get(k)]
    if differing:
        raise ValueError(
            f"{path} was saved by another probe: {', '.join(sorted(differing))} differ; use a "
            "folder of its own for each probe, or delete the file to begin anew"
        )
