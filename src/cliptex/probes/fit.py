"""Training point-wise linear heads, all learning rates side by side, on cached features.

The loss of a dense probe is taken over label pixels at the probe's resolution, with logits
interpolated bilinearly to them (align_corners off, as in evaluation). Interpolating commutes with
a point-wise linear head, so features are interpolated, once for all heads and without gradient,
to a grid of pixels drawn anew for every step: one row and one column at random in each of
`pixels` equal strata. Every pixel is equally likely (where strata are equal), so the expectation
is the loss over all pixels at a small part of the work, and labels are never resampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliptex.models.heads import interpolation
from cliptex.probes.config import ProbeConfig

# (M, K, g, g) raw predictions and their (M, g, g, ...) targets -> scalar mean loss
Loss = Callable[[Tensor, Tensor], Tensor]
INITIAL_SCALE = 0.1  # std of a fresh head's output on standardised features; 0 would leave the
# scale-shift-invariant loss without a gradient


@dataclass(frozen=True)
class Heads:
    """R linear heads on raw features: `weight` (R, K, C), `bias` (R, K), both float32."""

    weight: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, index: int) -> Heads:
        return Heads(self.weight[index : index + 1], self.bias[index : index + 1])

    def __call__(self, maps: Tensor) -> Tensor:
        """Predictions (B, R, K, h, w) of maps (B, C, h, w), on the heads' device."""
        batch, channels, height, width = maps.shape
        heads, outputs, _ = self.weight.shape
        flat = maps.to(self.weight.device).float().reshape(batch, channels, -1)  # (B, C, hw)
        out = self.weight.reshape(-1, channels) @ flat + self.bias.reshape(-1, 1)
        return out.reshape(batch, heads, outputs, height, width)


@dataclass(frozen=True)
class TrainData:
    """Cached features `maps` (N, C, h, w) and `targets` (N, r, r, ...) at the resolution r."""

    maps: Tensor
    targets: Tensor


def fit_heads(
    data: TrainData,
    loss: Loss,
    channels: int,
    config: ProbeConfig,
    *,
    rates: Sequence[float],
    rows: Tensor,
    device: torch.device | None = None,
) -> Heads:
    """One head with `channels` outputs per learning rate, trained on `rows` of `data`.

    `device` is where they learn and stay (default: the CPU); `data` lies on the CPU. All heads
    start from the same weights and see the same batches and pixels, so a head does not depend on
    which other rates are in `rates`. Deterministic for a given `config.seed`.
    """
    generator = torch.Generator().manual_seed(config.seed)
    device = device or torch.device("cpu")
    mean, std = (values.to(device) for values in _statistics(data.maps, rows, config))
    start = torch.randn(channels, data.maps.shape[1], generator=generator).to(device)
    start *= INITIAL_SCALE if config.standardise else INITIAL_SCALE / math.sqrt(start.shape[1])
    weights = [start.clone().requires_grad_() for _ in rates]
    biases = [torch.zeros(channels, device=device, requires_grad=True) for _ in rates]
    epochs = epochs_for(len(rows), config)
    steps = epochs * math.ceil(len(rows) / config.batch_size)
    optimizer, schedule = _optimizer(weights, biases, rates, steps, config)
    for _ in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator)]
        for batch in order.split(config.batch_size):
            x, y = _sample(data, batch, config.pixels, generator, device)
            x = (x - mean) / std  # (C, B * g * g)
            out = torch.cat(weights) @ x + torch.cat(biases)[:, None]  # (R * K, B * g * g)
            out = out.view(len(rates), channels, *y.shape[:3]).transpose(1, 2)  # (R, B, K, g, g)
            out = out.reshape(-1, channels, *y.shape[1:3])  # (R * B, K, g, g)
            # Heads share valid pixels, so R times the mean over heads is the sum of their losses.
            total = len(rates) * loss(out, y.repeat(len(rates), *[1] * (y.ndim - 1)))
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            schedule.step()
    weight, bias = torch.stack(weights).detach(), torch.stack(biases).detach()
    folded = weight / std.view(1, 1, -1)
    return Heads(folded, bias - folded @ mean.view(-1))


def epochs_for(images: int, config: ProbeConfig) -> int:
    """`config.epochs`, or as many more as `config.min_steps` asks for on a small set."""
    return max(config.epochs, math.ceil(config.min_steps / math.ceil(images / config.batch_size)))


def _optimizer(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    rates: Sequence[float],
    steps: int,
    config: ProbeConfig,
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with one rate per head (biases do not decay), and one schedule for all."""
    groups = []
    for weight, bias, rate in zip(weights, biases, rates, strict=True):
        groups.append({"params": [weight], "lr": rate, "weight_decay": config.weight_decay})
        groups.append({"params": [bias], "lr": rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: _factor(i, steps, config))
    return optimizer, schedule


def _factor(step: int, steps: int, config: ProbeConfig) -> float:
    """Linear warm-up, then a cosine from 1 to `min_factor`."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.min_factor + (1 - config.min_factor) * cosine


def _statistics(maps: Tensor, rows: Tensor, config: ProbeConfig) -> tuple[Tensor, Tensor]:
    """Per-channel mean and divisor over `rows`, (C, 1) each; (0, 1) where not asked for.

    The divisor is std * sqrt(C), which gives feature vectors a mean squared norm of 1: a step of
    Adam moves an output by up to the rate times the l1 norm of its features, so that without the
    root wide encoders would need smaller rates than narrow ones.
    """
    channels = maps.shape[1]
    if not config.standardise:
        return torch.zeros(channels, 1), torch.ones(channels, 1)
    total, squares = torch.zeros(channels).double(), torch.zeros(channels).double()
    for batch in rows.split(config.batch_size):
        values = maps[batch].float().flatten(2)  # (B, C, hw)
        total += values.sum((0, 2)).double()
        squares += values.square().sum((0, 2)).double()
    count = len(rows) * maps[0, 0].numel()
    mean = total / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    std = torch.where(std > 1e-6 * std.max().clamp(min=1e-30), std, 1.0)  # a constant channel
    return mean.float()[:, None], math.sqrt(channels) * std.float()[:, None]


def _sample(
    data: TrainData, batch: Tensor, pixels: int, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (C, B * g * g) interpolated to drawn label pixels, and labels (B, g, g, ...).

    Both on `device`. Channels come first so that all heads on all pixels are one matrix product,
    several times faster than a product per picture.
    """
    side = data.targets.shape[1]
    grid = min(pixels, side)
    rows, columns = (_strata(side, grid, generator) for _ in range(2))
    y = data.targets[batch[:, None, None], rows[None, :, None], columns[None, None, :]]
    maps = data.maps[batch].to(device).float()  # (B, C, h, w)
    vertical = interpolation(maps.shape[2], side)[rows].to(device)  # (g, h)
    horizontal = interpolation(maps.shape[3], side)[columns].to(device)  # (g, w)
    x = vertical @ (maps @ horizontal.T)  # (B, C, g, g)
    return x.transpose(0, 1).reshape(x.shape[1], -1), y.to(device)


def _strata(side: int, grid: int, generator: torch.Generator) -> Tensor:
    """One random index of [0, side) in each of `grid` equal strata, (grid,) int64."""
    drawn = torch.arange(grid) + torch.rand(grid, generator=generator)
    return (drawn * side / grid).long().clamp(max=side - 1)
