"""Arithmetic of a step, counted on the meta device, and what a device can do at most."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.clip import Clip, ClipConfig
from cliptex.models.cliptex import DenseConfig, build_cliptex
from cliptex.models.device import synchronize
from cliptex.training.config import TrainConfig
from cliptex.training.network import ClipOnly, Network

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def meta_network(clip: ClipConfig, dense: DenseConfig, channels: Mapping[str, int]) -> Network:
    """The network of a run on the meta device: shapes without memory. channels: task -> outputs."""
    with torch.device("meta"):
        model = Clip(clip)
        if not channels:
            return ClipOnly(model).train()
        return build_cliptex(model, channels, dense, seed=0).train()


def blank_inputs(network: Network, batch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and tokens (B, L) on the meta device."""
    length = network.clip.tokenize([""]).shape[1]
    images = torch.empty(batch, 3, *size, device="meta")
    return images, torch.empty(batch, length, dtype=torch.int64, device="meta")


@dataclass
class FlopCount:
    """FLOPs that training spends on an image, by size; each size is counted once.

    Three times the forward pass: the backward pass takes two products for every one of it. What
    activation checkpointing computes again is no progress and is not counted.
    """

    clip: ClipConfig
    dense: DenseConfig
    channels: Mapping[str, int]
    _known: dict[tuple[int, int], float] = field(default_factory=dict)

    def check(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Count all of `sizes`; ValueError for one that the image tower cannot take."""
        for height, width in sizes:
            try:
                self.per_image((height, width))
            except (ValueError, RuntimeError, AssertionError) as error:
                raise ValueError(
                    f"resolution: the image tower cannot take {height} x {width} pixels: {error}; "
                    f"the paper's recipes round theirs to multiples of --around.divisor"
                ) from error

    def per_image(self, size: tuple[int, int]) -> float:
        """FLOPs (a multiply-add is two) for an image of (height, width) and its caption."""
        if size not in self._known:
            network = meta_network(self.clip, self.dense, self.channels)
            # Without gradients, but not under no_grad: there the counter looks for gradient
            # functions of parameters that want some, and fails.
            network.requires_grad_(False)
            inputs = blank_inputs(network, 1, size)
            with FlopCounterMode(display=False) as counter:
                network(*inputs)
            self._known[size] = 3.0 * counter.get_total_flops()
        return self._known[size]


def device_peak(config: TrainConfig, device: torch.device) -> float:
    """FLOPs a second of `device` at the run's precision: given by `peak_tflops`, or measured."""
    if config.peak_tflops is not None:
        return config.peak_tflops * 1e12
    return measure_peak(device, DTYPES[config.precision])


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
