"""Floating-point operations: counted of a module, measured of a device. A multiply-add is two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.device import synchronize


def count_flops(module: nn.Module, *inputs: Any) -> tuple[float, Any]:
    """FLOPs of one forward pass without gradients, and its output.

    `module` is left in evaluation mode, without parameters that learn. On the meta device shapes
    are enough, and nothing is computed.
    """
    module.eval().requires_grad_(False)
    with _countable_attention(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = module(*inputs)
    return float(counter.get_total_flops()), out


def count_training_flops(module: nn.Module, *inputs: Any) -> float:
    """FLOPs of a forward pass, and of a backward pass to the parameters, not to `inputs`.

    `module` returns a tensor or a list of tensors, and is left in evaluation mode: while training,
    batch norms refuse a batch of one value.
    """
    module.eval().requires_grad_(True)
    with _countable_attention(), FlopCounterMode(display=False) as counter:
        out = module(*inputs)
        outputs = [out] if isinstance(out, Tensor) else out
        torch.stack([x.sum() for x in outputs]).sum().backward()
    module.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


@contextmanager
def _countable_attention() -> Iterator[None]:
    """Within, torch's attention takes no fused path, whose one kernel the counter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def measure_peak(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOPs a second of the best of `repeats` square matrix products."""
    n = 1024 if device.type == "cpu" else 8192
    a, b = (torch.ones(n, n, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product = a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
        del product
    return 2.0 * n**3 / best
