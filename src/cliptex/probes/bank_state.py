"""The state of a bank between two steps, in one file that is either whole or absent."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from cliptex.files import save_tensors

SECONDS = 120  # after which a state is saved although few steps were done


class Named(Protocol):
    """What tells one head of a bank from the others."""

    @property
    def name(self) -> str: ...


class Learner(Protocol):
    """A head in training; `diverged` says that its loss was not finite."""

    diverged: bool

    @property
    def key(self) -> Named: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def optimizer(self) -> Optimizer: ...


@dataclass
class StateFile:
    """Where heads that train together save themselves every `every` steps, and every two minutes.

    identity: whatever the outcome depends on; a file of another identity is refused. Dropout,
    order and augmentation are functions of seeds and steps, so heads, optimizers and the step are
    all there is to keep.
    """

    path: Path
    identity: str
    every: int = 200
    _saved: float = field(default_factory=time.monotonic, init=False, repr=False)

    def save_if_due(self, members: Sequence[Learner], step: int, total: int) -> None:
        """`save`, where the last one is so many steps or seconds ago, or there is no more step."""
        late = time.monotonic() - self._saved > SECONDS
        if late or step % self.every == 0 or step == total:
            self.save(members, step)

    def save(self, members: Sequence[Learner], step: int) -> None:
        """Write heads, optimizers and the number of finished steps, atomically."""
        tensors: dict[str, Tensor] = {}
        for member in members:
            prefix = member.key.name
            for name, tensor in member.module.state_dict().items():
                tensors[f"{prefix}/module/{name}"] = tensor.contiguous()
            for index, slots in member.optimizer.state_dict()["state"].items():
                for slot, tensor in slots.items():
                    tensors[f"{prefix}/optimizer/{index}/{slot}"] = tensor.contiguous()
        diverged = [member.key.name for member in members if member.diverged]
        state = {"identity": self.identity, "step": step, "diverged": diverged}
        save_tensors(tensors, self.path, {"bank": json.dumps(state)})
        self._saved = time.monotonic()

    def load(self, members: Sequence[Learner]) -> int:
        """Put the saved state into `members`, in place; how many steps were finished, 0 if none.

        ValueError names a file that is damaged or belongs to another probe.
        """
        if not self.path.exists():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads((file.metadata() or {})["bank"])
                if state["identity"] != self.identity:
                    raise ValueError("it belongs to a probe of other settings, weights or data")
                names = list(file.keys())
                for member in members:
                    own = f"{member.key.name}/"
                    tensors = {n.removeprefix(own): n for n in names if n.startswith(own)}
                    _restore(member, {n: file.get_tensor(full) for n, full in tensors.items()})
                    member.diverged = member.key.name in state["diverged"]
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{self.path}: cannot go on from this state: {error}; name another folder "
                "(--state), or remove the file to start anew"
            ) from error
        return int(state["step"])


def _restore(member: Learner, tensors: dict[str, Tensor]) -> None:
    module, slots = {}, {}
    for name, tensor in tensors.items():
        kind, rest = name.split("/", 1)
        if kind == "module":
            module[rest] = tensor
        else:
            index, slot = rest.split("/")
            slots.setdefault(int(index), {})[slot] = tensor
    member.module.load_state_dict(module)
    groups: list[dict[str, Any]] = member.optimizer.state_dict()["param_groups"]
    member.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def identity_of(facts: dict[str, object]) -> str:
    """A digest of JSON-able facts."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
