"""The fast recipe: linear heads on cached features, all learning rates on one optimizer.

The loss of a dense probe is taken over label pixels at the probe's resolution, with logits
interpolated bilinearly to them (align_corners off, as in evaluation). Interpolating commutes with
a point-wise linear head, so features are interpolated, once for all heads and without gradient,
to a grid of pixels drawn anew for every step: one row and one column at random in each of
`pixels` equal strata. Every pixel is equally likely (where strata are equal), so the expectation
is the loss over all pixels at a small part of the work, and labels are never resampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.heads import interpolation
from cliptex.probes.config import FastConfig
from cliptex.probes.features import FeatureReader, MmapBuffer, StoredMemory
from cliptex.probes.heads import MapMethod
from cliptex.probes.method import Batch, HeadKey, held_count
from cliptex.probes.task import Loss, MapSplit

SCORED_TOGETHER = 1024  # vectors: seven rates of a thousand classes are 29 MB of outputs
INITIAL_SCALE = 0.1  # std of a fresh head's output on standardised features; 0 would leave the
# scale-shift-invariant loss without a gradient


@dataclass(frozen=True)
class LinearHeads:
    """R linear heads on raw features: `weight` (R, K, C), `bias` (R, K), both float32.

    dtype: of features, to which those that were not cached are rounded as if they were.
    """

    weight: Tensor
    bias: Tensor
    keys: tuple[HeadKey, ...] = ()
    dtype: torch.dtype = torch.float32
    diverged: bool = False

    def __len__(self) -> int:
        return len(self.weight)

    def __call__(self, maps: Tensor) -> Tensor:
        """Predictions (B, R, K, h, w) of maps (B, C, h, w), on the heads' device."""
        batch, channels, height, width = maps.shape
        heads, outputs, _ = self.weight.shape
        flat = maps.to(self.weight.device, self.dtype).float().reshape(batch, channels, -1)
        out = self.weight.reshape(-1, channels) @ flat + self.bias.reshape(-1, 1)  # (B, RK, hw)
        return out.reshape(batch, heads, outputs, height, width)

    def predict(self, features: Tensor) -> list[Tensor]:
        """Raw outputs (B, K, h, w) of each head."""
        return list(self(features).unbind(1))

    def enlarge(self, out: Tensor, size: tuple[int, ...]) -> Tensor:
        """(B, K, h, w) -> (B, K, *size), bilinear, align_corners off."""
        return F.interpolate(out, size=tuple(size), mode="bilinear", align_corners=False)

    def pick(self, key: HeadKey) -> LinearHeads:
        """One of the heads."""
        at = slice(index := self.keys.index(key), index + 1)
        return LinearHeads(self.weight[at], self.bias[at], (key,), self.dtype, self.diverged)


@dataclass(frozen=True)
class TrainData:
    """Cached features `maps` (N, C, h, w) and `targets` (N, r, r, ...) at the resolution r; on the
    CPU."""

    maps: Tensor
    targets: Tensor


class LinearStack:
    """Linear heads at several rates in training: one AdamW, one matrix product.

    All start from the same weights and see the same batches and pixels, so a head does not depend
    on which other rates are trained. `mean` and `std` (C, 1) standardise what they read.
    """

    def __init__(
        self,
        keys: Sequence[HeadKey],
        start: Tensor,
        loss: Loss,
        weight_decay: float,
        scale: tuple[Tensor, Tensor],
        dtype: torch.dtype,
    ) -> None:
        """`start`: weights (K, C). `dtype`: of cached features."""
        self.keys = tuple(keys)
        self._loss, self._scale, self._dtype = loss, scale, dtype
        outputs = len(start)
        self._weights = [start.clone().requires_grad_() for _ in keys]
        self._biases = [torch.zeros(outputs, device=start.device, requires_grad=True) for _ in keys]
        groups = []
        for weight, bias, key in zip(self._weights, self._biases, keys, strict=True):
            groups.append({"params": [weight], "lr": key.lr, "weight_decay": weight_decay})
            groups.append({"params": [bias], "lr": key.lr, "weight_decay": 0.0})
        self._optimizer = torch.optim.AdamW(groups)

    def learn(self, batch: Batch, factor: float, step: int) -> None:
        """One step of all heads on features (C, B * g * g) and targets (B, g, g, ...)."""
        heads, y = len(self.keys), batch.targets
        for group, key in zip(self._optimizer.param_groups, _twice(self.keys), strict=True):
            group["lr"] = key.lr * factor
        mean, std = self._scale
        x = (batch.features - mean) / std
        out = torch.cat(self._weights) @ x + torch.cat(self._biases)[:, None]  # (R * K, B * g * g)
        out = out.view(heads, -1, *y.shape[:3]).transpose(1, 2)  # (R, B, K, g, g)
        out = out.reshape(-1, *out.shape[2:])  # (R * B, K, g, g)
        # Heads share valid pixels, so R times the mean over heads is the sum of their losses.
        total = heads * self._loss(out, y.repeat(heads, *[1] * (y.ndim - 1)))
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._optimizer.step()

    def finish(self) -> LinearHeads:
        """The trained heads on raw features: the standardisation is folded in."""
        mean, std = self._scale
        weight, bias = torch.stack(self._weights).detach(), torch.stack(self._biases).detach()
        folded = weight / std.view(1, 1, -1)
        return LinearHeads(folded, bias - folded @ mean.view(-1), self.keys, self._dtype)


def _twice(keys: Sequence[HeadKey]) -> list[HeadKey]:
    """One per group of the optimizer: of a weight and of a bias."""
    return [key for key in keys for _ in range(2)]


class DrawnPixels:
    """Batches of cached pictures at drawn pixels; everything is drawn from one generator."""

    def __init__(
        self,
        data: TrainData,
        rows: Tensor,
        config: FastConfig,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._data, self._rows, self._config = data, rows, config
        self._generator, self._device = generator, device
        self.steps_per_epoch = math.ceil(len(rows) / config.batch_size)
        self._epochs = epochs_for(len(rows), config)
        self.steps = self._epochs * self.steps_per_epoch

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """All batches; what is drawn depends on those before, so none can be left out."""
        assert start == 0
        for _ in range(self._epochs):
            drawn = torch.randperm(len(self._rows), generator=self._generator)
            for batch in self._rows[drawn].split(self._config.batch_size):
                yield self._sample(batch)

    def _sample(self, batch: Tensor) -> Batch:
        """Features (C, B * g * g) interpolated to drawn label pixels, and labels (B, g, g, ...).

        Channels come first so that all heads on all pixels are one matrix product, several times
        faster than a product per picture.
        """
        side = self._data.targets.shape[1]
        grid = min(self._config.pixels, side)
        rows, columns = (strata(side, grid, self._generator) for _ in range(2))
        y = self._data.targets[batch[:, None, None], rows[None, :, None], columns[None, None, :]]
        maps = self._data.maps[batch].to(self._device).float()  # (B, C, h, w)
        vertical = interpolation(maps.shape[2], side)[rows].to(self._device)  # (g, h)
        horizontal = interpolation(maps.shape[3], side)[columns].to(self._device)  # (g, w)
        x = vertical @ (maps @ horizontal.T)  # (B, C, g, g)
        return Batch(x.transpose(0, 1).reshape(x.shape[1], -1), y.to(self._device))


def epochs_for(images: int, config: FastConfig) -> int:
    """`epochs`, or as many more as `min_steps` asks for on a small set."""
    return max(config.epochs, math.ceil(config.min_steps / math.ceil(images / config.batch_size)))


def strata(side: int, grid: int, generator: torch.Generator) -> Tensor:
    """One random index of [0, side) in each of `grid` equal strata, (grid,) int64."""
    drawn = torch.arange(grid) + torch.rand(grid, generator=generator)
    return (drawn * side / grid).long().clamp(max=side - 1)


def statistics(maps: Tensor, rows: Tensor, config: FastConfig) -> tuple[Tensor, Tensor]:
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


def begin_stack(
    data: TrainData,
    loss: Loss,
    outputs: int,
    config: FastConfig,
    keys: Sequence[HeadKey],
    rows: Tensor,
    device: torch.device,
) -> tuple[LinearStack, DrawnPixels]:
    """Untrained heads of one seed, and what they learn from; deterministic for the seed."""
    generator = torch.Generator().manual_seed(keys[0].seed)
    mean, std = (values.to(device) for values in statistics(data.maps, rows, config))
    start = torch.randn(outputs, data.maps.shape[1], generator=generator).to(device)
    start *= INITIAL_SCALE if config.standardise else INITIAL_SCALE / math.sqrt(start.shape[1])
    decay, dtype = config.weight_decay, data.maps.dtype
    stack = LinearStack(keys, start, loss, decay, (mean, std), dtype)
    return stack, DrawnPixels(data, rows, config, generator, device)


class FastProbe(MapMethod):
    """The features of all pictures are read once, for all seeds and rates."""

    config: FastConfig

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        probe, config, memory = self.train.probe, self.config, self.storage.memory
        self._reader = FeatureReader(
            self.encoder,
            config,
            dense=probe.dense,
            fingerprint=self.fingerprint,
            memory=memory if self.storage.features is None else StoredMemory(self.storage.features),
            dtype=getattr(torch, config.feature_dtype),
        )
        self._data = self._read_train()

    def _read_train(self) -> TrainData:
        """Features and targets of the whole set, each picture read once."""
        train, config = self.train, self.config
        buffer, n = MmapBuffer(config.scratch, config.memory_budget), len(train)
        maps = targets = torch.empty(0)
        label = f"{self.label} on {train.name}, features"
        for i, (_, target, features) in enumerate(
            self._reader.stream(train.name, n, train.plain, label)
        ):
            if i == 0:
                shape, name = (n, *target.shape), train.name
                targets = buffer.empty(shape, train.probe.dtype, f"labels of {name}")
                shape = (n, *features.shape)
                maps = buffer.empty(shape, self._reader.dtype, f"features of {name}")
            maps[i], targets[i] = features, torch.from_numpy(np.ascontiguousarray(target))
        return TrainData(maps, targets)

    def rounds(self, keys: Sequence[HeadKey]) -> list[list[HeadKey]]:
        """Every seed draws its own batches."""
        return [[key for key in keys if key.seed == seed] for seed in {k.seed: 0 for k in keys}]

    def hold_out(self, rows: list[int], keys: Sequence[HeadKey]) -> tuple[list[int], list[int]]:
        """By the heads' seed."""
        held = held_count(len(rows), self.config.holdout)
        generator = torch.Generator().manual_seed(keys[0].seed)
        order = torch.randperm(len(rows), generator=generator).tolist()
        return order[held:], order[:held]

    def begin(
        self, keys: Sequence[HeadKey], rows: Sequence[int]
    ) -> tuple[list[LinearStack], DrawnPixels]:
        """All rates of one seed."""
        probe, chosen = self.train.probe, torch.tensor(rows)
        args = (self._data, probe.loss, probe.outputs, self.config, keys, chosen)
        stack, batches = begin_stack(*args, self.encoder.device)
        return [stack], batches

    def read(
        self, split: MapSplit, rows: Sequence[int] | None, label: str
    ) -> Iterator[tuple[Tensor, list[tuple[np.ndarray, ...]]]]:
        """Features of whole pictures and their ground truths; those of train (`rows`) are here."""
        if rows is None:
            read = self._reader.stream(split.name, len(split), split.test, label)
            pairs = ((features, truths) for _, truths, features in read)
        else:
            pairs = ((self._data.maps[i], split.test(i)[1]) for i in rows)
        while block := list(islice(pairs, 1 if split.probe.dense else SCORED_TOGETHER)):
            yield torch.stack([features for features, _ in block]), [truths for _, truths in block]

    def protocol(self, key: HeadKey) -> dict[str, object]:
        """As in `Method`."""
        probe, config = self.train.probe, self.config
        told: dict[str, object] = {"head": "linear with bias on pooled features"}
        if probe.dense:
            told = {
                "head": "point-wise convolution with bias on the last map",
                "map": list(self._data.maps.shape[1:]),
                "train_pixels": f"{config.pixels}x{config.pixels} drawn per picture and step",
                "interpolation": "bilinear, align_corners=False, to the ground truth's size",
            }
        return {
            **config.protocol(),
            **self.train.facts(),
            **told,
            "loss": probe.loss_name,
            "train_images": len(self.train),
            **self._reader.protocol(),
        }
