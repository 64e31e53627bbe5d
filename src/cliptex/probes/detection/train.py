"""Training several heads on one pass of the frozen encoder per batch.

Each head has its own weights, optimiser and random numbers, so that it ends as it would alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cliptex.console import say, track
from cliptex.models.config import Precision
from cliptex.models.device import computed_in
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank_state import StateFile
from cliptex.probes.detection.batches import Batch, StepData
from cliptex.probes.detection.config import DetectionProbe, Head
from cliptex.probes.member import own_randomness

WEIGHTS, LOSSES = 0, 1  # streams of random numbers drawn from a head's seed


@dataclass(frozen=True)
class CandidateKey:
    """Which head: its probe, its peak rate, and its seed."""

    probe: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.probe}/lr{self.lr!r}/seed{self.seed}"


@dataclass
class Candidate:
    """One head in training. `diverged`: its loss was not finite, and it rests from then on."""

    key: CandidateKey
    module: Head
    optimizer: torch.optim.AdamW
    diverged: bool = False


class MapReader:
    """The maps of a frozen encoder for pictures of any size (`models.encoder.fit_to_stride`)."""

    def __init__(self, encoder: FrozenEncoder, precision: Precision = "fp32") -> None:
        self._encoder = encoder
        self._precision: Precision = precision
        self.device = encoder.device

    def read(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) uint8 -> {stride: (B, C, h, w)} float32, without gradient."""
        with computed_in(self._precision, self.device):
            maps = self._encoder(images.to(self.device).float() / 255).maps
        return {stride: x.detach().float() for stride, x in maps.items()}

    def channels(self) -> dict[int, int]:
        """Widths of the maps by stride, read off a blank picture."""
        side = self._encoder.image_size or 224
        blank = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        return {stride: x.shape[1] for stride, x in self.read(blank).items()}


def train_heads(
    reader: MapReader,
    data: StepData,
    config: DetectionProbe,
    *,
    classes: int,
    state: StateFile | None = None,
) -> list[Candidate]:
    """One trained head per rate and seed, in the order rates x seeds, in evaluation mode.

    `classes` counts the background; a `state` that exists is gone on from. ValueError where the
    warm-up is longer than the training, or the state is another probe's.
    """
    total = len(data)
    config.schedule.check(total)
    channels = reader.channels()
    candidates = [
        make_candidate(config, channels, classes, rate, seed, reader.device)
        for rate in config.grid
        for seed in config.seeds
    ]
    start = 0 if state is None else state.load(candidates)
    if state is not None and start:
        say(f"going on from step {start} of {total} ({state.path})")
    steps = enumerate(data.batches(start), start=start)
    for step, batch in track(steps, label=f"{config.name} probe", total=total, done=start):
        maps = reader.read(batch.images)
        moved = batch.to(reader.device)
        factor = config.schedule.factor(step, total, data.steps_per_epoch)
        for candidate in candidates:
            train_step(candidate, maps, moved, factor, step)
        if state is not None:
            state.save_if_due(candidates, step + 1, total)
    for candidate in candidates:
        candidate.module.eval()
    return candidates


def make_candidate(
    config: DetectionProbe,
    channels: Mapping[int, int],
    classes: int,
    rate: float,
    seed: int,
    device: torch.device,
) -> Candidate:
    """An untrained head and its optimiser; weights depend on `seed` alone."""
    with own_randomness(seed, WEIGHTS):
        head = config.build(channels, classes)
    head.to(device).train()
    return Candidate(CandidateKey(config.name, rate, seed), head, _optimizer(head, rate, config))


def train_step(
    candidate: Candidate, maps: Mapping[int, Tensor], batch: Batch, factor: float, step: int
) -> None:
    """One step at `factor` times the peak rate; a loss that is not finite ends the training."""
    if candidate.diverged:
        return
    for group in candidate.optimizer.param_groups:
        group["lr"] = factor * candidate.key.lr
    device = next(iter(maps.values())).device
    with own_randomness(candidate.key.seed, LOSSES, step, device=device):
        losses = candidate.module.losses(maps, batch.size, batch.targets)
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        candidate.diverged = True
        say(f"{candidate.key.name}: the loss is {loss} at step {step}")
        return
    candidate.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    candidate.optimizer.step()


def _optimizer(head: nn.Module, rate: float, config: DetectionProbe) -> torch.optim.AdamW:
    decayed = [p for p in head.parameters() if config.decay_biases or p.ndim > 1]
    rest = [p for p in head.parameters() if not config.decay_biases and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999))
