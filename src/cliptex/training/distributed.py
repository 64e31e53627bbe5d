"""Several processes as one: who takes part, what they tell each other, rows with their gradient.

Every rank holds a share of each global batch. Its loss is the mean over ranks' share of the global
loss times the number of ranks, because DDP and FSDP2 average gradients: the mean over ranks is then
the loss, and its gradient the gradient, of one process on the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.device import pick_device

TIMEOUT = timedelta(minutes=30)  # a rank may wait for another's first, cold read of its data


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, seen from one of them.

    rank: which one (0 .. size - 1); rank 0 writes and speaks. device: where it computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        """True on the one rank that writes files and prints."""
        return self.rank == 0

    def gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's `numbers` (equally many), by rank; exchanged on the CPU."""
        if self.size == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [row.tolist() for row in found]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, elementwise, the same bits on all of them."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.size > 1:
            self.gather([0.0])


@contextmanager
def join_world(name: str = "auto") -> Iterator[World]:
    """The world that torchrun describes in the environment; without torchrun, only this process.

    An existing process group is used and not ended; one that is made here is ended here.
    Messages between CPUs go over gloo, between GPUs over NCCL; Apple's GPU has neither, so that
    several processes compute on the CPU there. `name` is the device, see `pick_device`, which
    raises ValueError.
    """
    made = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", 1)) > 1
    device = pick_device(name)
    if device.type == "mps" and (made or dist.is_initialized()):
        device = torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if made:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        if dist.is_initialized():
            yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
        else:
            yield World(device=device)
    finally:
        if made:
            dist.destroy_process_group()


def gather_rows(own: Tensor, rows: Sequence[int], world: World) -> Tensor:
    """All ranks' rows below each other, with gradient: (B_rank, D) -> (B, D).

    rows: how many each rank has; they may differ.
    """
    if world.size == 1:
        return own
    gathered: Tensor = _GatherRows.apply(own, tuple(rows), world.rank)
    return gathered


class _GatherRows(torch.autograd.Function):
    """Backward: the gradients that all ranks' losses have for these rows are added up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: tuple[int, ...], rank: int) -> Tensor:
        first = sum(rows[:rank])
        ctx.own = slice(first, first + rows[rank])
        padded = F.pad(own, (0, 0, 0, max(rows) - len(own)))  # (max rows, D)
        found = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(found, padded)
        return torch.cat([part[:n] for part, n in zip(found, rows, strict=True)])  # (B, D)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.own], None, None
