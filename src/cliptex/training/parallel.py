"""How a network is spread over devices: repeated blocks, checkpointing, compiling, DDP, FSDP2.

While training, a batch norm divides by the statistics of the samples it sees together: of all
ranks on GPUs, of one rank on CPUs, of one part of a rank's share with `accumulate`. So such a run
is not that of one process on the whole batch, unlike one without batch norms. Its running
statistics move once for a batch, and alike on all ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cliptex.training.config import TrainConfig
from cliptex.training.distributed import World
from cliptex.training.network import DTYPES, Network

T = TypeVar("T", bound=Tensor)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The outermost repeated parts of a tower: a transformer's blocks, a CNN's.

    They are the members, all of one class and with weights, of every ModuleList and of every
    Sequential of two or more.
    """
    found: list[nn.Module] = []
    for child in module.children():
        members = list(child.children())
        if (
            isinstance(child, nn.ModuleList | nn.Sequential)
            and len(members) >= (1 if isinstance(child, nn.ModuleList) else 2)
            and len({type(member) for member in members}) == 1
            and all(any(True for _ in member.parameters()) for member in members)
        ):
            found += members
        else:
            found += blocks(child)
    return found


def distribute(model: Network, config: TrainConfig, world: World) -> nn.Module:
    """The module to call for the forward pass; `model` keeps its names and its weights.

    Order matters: blocks are checkpointed, then compiled, then sharded, so that each wraps what
    was done before.
    """
    if world.size > 1 and world.device.type == "cuda":
        synchronise(model)
    towers = [*blocks(model.clip.image), *blocks(model.clip.text)]
    if config.activation_checkpointing:
        for block in towers:
            _recompute(block, compiled=config.compile)
    if config.compile:
        for block in towers:
            block.compile()
    if world.size == 1:
        return model
    if config.parallel == "fsdp2":
        return _shard(model, towers, world, DTYPES[config.precision])
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
    )


def _recompute(block: nn.Module, *, compiled: bool) -> None:
    """Have `block` keep only its input; running statistics are not updated a second time."""
    norms = batch_norms(block)
    forward = partial(checkpoint, block.forward, use_reentrant=False)
    if not norms:
        block.forward = forward
    elif not compiled:  # the compiler takes no such context: these blocks keep their insides
        context = lambda: (nullcontext(), statistics_kept(norms))  # noqa: E731
        block.forward = partial(forward, context_fn=context)


def _shard(
    model: Network, towers: Iterable[nn.Module], world: World, dtype: torch.dtype
) -> nn.Module:
    """Shard every block, then the rest; the logit scale and batch norms stay whole.

    The one has no dimension to shard; the others compute in float32, beside their statistics.
    Gathered weights have the dtype of the computation: autocast would keep its own half-precision
    copies of all of them until the backward pass, and nothing would be saved. Gradients are
    averaged in float32.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32
    )
    whole_ones = set(_never_sharded(model))
    for block in towers:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=whole_ones)
    images_stay = replace(policy, cast_forward_inputs=False)  # colours are normalised in float32
    fully_shard(model, mesh=mesh, mp_policy=images_stay, ignored_params=whole_ones)
    return model


def _never_sharded(model: nn.Module) -> list[nn.Parameter]:
    scalars = [parameter for parameter in model.parameters() if parameter.ndim == 0]
    return [*scalars, *(p for norm in batch_norms(model) for p in norm.parameters())]


@contextmanager
def gradients_at_end(engine: nn.Module, last: bool) -> Iterator[None]:
    """Within, a backward pass adds to the gradients; ranks exchange them in the `last` one."""
    context: AbstractContextManager[object] = nullcontext()
    if isinstance(engine, FSDPModule):
        engine.set_requires_gradient_sync(last)
    elif isinstance(engine, DistributedDataParallel) and not last:
        context = engine.no_sync()
    with context:
        yield


def finish_gradients(engine: nn.Module, world: World) -> None:
    """Average, after the last backward pass, the gradients that FSDP2 does not know."""
    if isinstance(engine, FSDPModule):
        gradients = [p.grad for p in _never_sharded(engine) if p.grad is not None]
        mean = world.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = mean.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """() global 2-norm over whole gradients, sharded or not."""
    norms = [nn.utils.get_total_norm(group) for group in by_kind(gradients)]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return torch.linalg.vector_norm(torch.stack(whole)) if len(whole) > 1 else whole[0]


def by_kind(tensors: Iterable[T]) -> list[list[T]]:
    """Sharded and whole tensors apart: the operations on lists do not take both at once."""
    groups: dict[bool, list[T]] = {}
    for tensor in tensors:
        groups.setdefault(isinstance(tensor, DTensor), []).append(tensor)
    return list(groups.values())


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Full tensors on the CPU of those that may be sharded, on rank 0; nothing on the others.

    All ranks ask together. The others hold one full tensor at a time.
    """
    main = not dist.is_initialized() or dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = tensor.detach()
        full = full.full_tensor() if isinstance(full, DTensor) else full
        if main:
            found[name] = full.cpu().contiguous()
    return found


def placed_like(tensor: Tensor, like: Tensor | None) -> Tensor:
    """This rank's shard of a full `tensor` where `like` is sharded; else `tensor` itself."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All batch norms in `module` that track statistics."""
    found = (child for child in module.modules() if isinstance(child, _BatchNorm))
    return [norm for norm in found if norm.track_running_stats]


def synchronise(model: nn.Module) -> None:
    """On GPUs: have the batch norms below `model` see the samples of all ranks, in place.

    timm's conversion, since torch's drops the activations inside timm's own batch norms.
    """
    convert_sync_batchnorm(model)


def copy_statistics(norms: Sequence[_BatchNorm]) -> list[Tensor]:
    """Their running means, variances and counts as they are now."""
    return [buffer.clone() for norm in norms for buffer in norm.buffers(recurse=False)]


def restore_statistics(norms: Sequence[_BatchNorm], copies: Sequence[Tensor]) -> None:
    """Make them what they were when `copies` were taken."""
    buffers = (buffer for norm in norms for buffer in norm.buffers(recurse=False))
    for buffer, copy in zip(buffers, copies, strict=True):
        buffer.copy_(copy)


@contextmanager
def statistics_kept(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Within, a training pass normalises as ever; the running statistics are put back after it.

    For passes over samples that another pass of the same step counts.
    """
    before = copy_statistics(norms)
    try:
        yield
    finally:
        restore_statistics(norms, before)


def average_statistics(norms: Sequence[_BatchNorm], world: World) -> None:
    """On CPUs, where batch norms cannot see other ranks: the ranks' mean statistics, on all.

    The mean is that of the whole batch where shares are of one length; the variance leaves out
    how far the ranks' means are apart.
    """
    apart = [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]
    if world.size == 1 or not apart:
        return
    tensors = [t for norm in apart for t in (norm.running_mean, norm.running_var) if t is not None]
    mean = world.mean(torch.cat(tensors))
    for tensor, part in zip(tensors, mean.split([len(t) for t in tensors]), strict=True):
        tensor.copy_(part)
