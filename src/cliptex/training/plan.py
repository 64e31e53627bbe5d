"""How much memory a run needs on each GPU, worked out from shapes alone.

    weights, gradients, AdamW's two moments   4 + 4 + 8 bytes a parameter, on every GPU (DDP) or
                                              shared by all (FSDP2)
    average of the weights (`ema`)            4 bytes a parameter, likewise
    copies in half precision                  2 bytes a parameter that is whole on the GPU
    FSDP2's whole layers                      what no block holds, and two blocks at a time
    activations                               what autograd saves in a forward pass, summed up
                                              on fake tensors with fused attention

What the CUDA context, fragmentation and workspaces take (often 1 to 2 GB) comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from cliptex.models.clip import Clip, ClipConfig
from cliptex.models.cliptex import build_cliptex
from cliptex.training.config import TrainConfig, of_all_ranks
from cliptex.training.flops import DTYPES
from cliptex.training.network import ClipOnly
from cliptex.training.parallel import blocks

GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward pass of a batch keeps, with the blocks' insides and without."""

    kept: int
    checkpointed: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one of `gpus` GPUs that share the work by `parallel`.

    batch: samples on that GPU at a time. states: weights, gradients, optimizer, average.
    copies: half-precision and gathered weights.
    """

    gpus: int
    parallel: str
    batch: int
    states: int
    copies: int
    activations: Activations

    def total(self, checkpointing: bool) -> int:
        """The sum, with or without activation checkpointing."""
        kept = self.activations.checkpointed if checkpointing else self.activations.kept
        return self.states + self.copies + kept


def parameters_by_part(network: nn.Module) -> dict[str, int]:
    """Part of the network -> number of parameters."""
    parts: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        first, *rest = name.split(".")
        part = f"{first}.{rest[0]}" if first in ("clip", "heads") else first
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def plan_memory(
    clip: ClipConfig,
    config: TrainConfig,
    channels: Mapping[str, int],
    gpus: Sequence[int] = GPUS,
) -> list[MemoryPlan]:
    """One plan for every number of GPUs and way of sharing, for the run's global batch.

    channels: task -> outputs of its head. The batch on a GPU is its part of `batch_size`, at
    least one sample, in `accumulate` parts, at the base resolution.
    """
    half = config.precision != "fp32"
    with FakeTensorMode(), _default_dtype(DTYPES[config.precision]):
        model = Clip(clip)
        network = build_cliptex(model, channels, config.dense, seed=0) if channels else None
        network = (network or ClipOnly(model)).train()
        total = sum(p.numel() for p in network.parameters())
        towers = [*blocks(network.clip.image), *blocks(network.clip.text)]
        sizes = sorted(sum(p.numel() for p in block.parameters()) for block in towers)
        plans = []
        for count in gpus:
            share = of_all_ranks(config, count).batch_size / (count * config.accumulate)
            batch = max(1, math.ceil(share))
            kept = measure_activations(network, towers, batch, config.resolution[0])
            state = total * (16 if config.ema is None else 20)
            plans.append(MemoryPlan(count, "ddp", batch, state, 2 * total * half, kept))
            if count > 1:
                gathered = total - sum(sizes) + sum(sizes[-2:])
                copies = gathered * (2 if half else 4) + sizes[-1] * 4  # and a block's gradient
                plans.append(MemoryPlan(count, "fsdp2", batch, state // count, copies, kept))
    return plans


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def measure_activations(
    network: Any, towers: Sequence[nn.Module], batch: int, size: tuple[int, int]
) -> Activations:
    """What autograd saves of `batch` images (height, width), apart from the parameters.

    The forward pass keeps every block's insides, or with checkpointing every block's input and
    the insides of one block at a time.
    """
    kept = _Kept(network)
    hooks = [block.register_forward_pre_hook(kept.enter) for block in towers]
    hooks += [block.register_forward_hook(kept.leave) for block in towers]
    dtype = next(network.parameters()).dtype
    length = network.clip.tokenize([""]).shape[1]
    images = torch.empty(batch, 3, *size, dtype=dtype)
    try:
        with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            out = network(images, torch.zeros(batch, length, dtype=torch.int64))
        del out
    finally:
        for hook in hooks:
            hook.remove()
    largest = max(kept.inside.values(), default=0)
    total = kept.outside + sum(kept.inside.values())
    return Activations(total, min(total, kept.outside + sum(kept.inputs.values()) + largest))


class _Kept:
    """Bytes that autograd saves, by block; a storage counts once, parameters never."""

    def __init__(self, network: nn.Module) -> None:
        self.seen = {p.untyped_storage()._cdata for p in network.parameters()}
        self.inside: dict[nn.Module, int] = {}
        self.inputs: dict[nn.Module, int] = {}
        self.outside = 0
        self.current: nn.Module | None = None

    def enter(self, block: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.current = block
        self.inputs[block] = arguments[0].untyped_storage().nbytes()

    def leave(self, *_: Any) -> None:
        self.current = None

    def pack(self, tensor: Tensor) -> Tensor:
        """Returned as it is: alive with the graph, no other storage takes its place."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            if self.current is None:
                self.outside += storage.nbytes()
            else:
                before = self.inside.get(self.current, 0)
                self.inside[self.current] = before + storage.nbytes()
        return tensor


def plan_table(plans: Sequence[MemoryPlan]) -> list[str]:
    """Lines of text, in GB, for people."""
    head = f"{'GPUs':>5} {'shared by':>9} {'batch':>5} {'states':>8} {'copies':>8}"
    lines = [f"{head} {'activations':>12} {'total':>8} {'with checkpointing':>19}"]
    for plan in plans:
        numbers = f"{plan.gpus:>5} {plan.parallel:>9} {plan.batch:>5} "
        numbers += f"{plan.states / 1e9:>8.2f} {plan.copies / 1e9:>8.2f} "
        numbers += f"{plan.activations.kept / 1e9:>12.2f} {plan.total(False) / 1e9:>8.2f} "
        lines.append(numbers + f"{plan.total(True) / 1e9:>19.2f}")
    return lines
