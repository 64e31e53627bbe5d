"""Batch norms in training: running statistics move once for a batch, and alike on all ranks.

While training, a batch norm divides by the statistics of the samples it sees together: of all
ranks on GPUs, of one rank on CPUs, of one part of a rank's share with `accumulate`. So such a run
is not that of one process on the whole batch, unlike one without batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cliptex.training.distributed import World


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
