"""Training several heads on one pass of the frozen encoder per batch.

Each head has its own weights, optimiser and random numbers, so that it ends as it would alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.console import say, track
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.detection.batches import StepData, seeded
from cliptex.probes.detection.config import DetectionProbe, Head
from cliptex.probes.detection.state import load_state, save_state

WEIGHTS, LOSSES = 0, 1  # streams of random numbers drawn from a head's seed


@dataclass
class Candidate:
    """One head in training: its peak rate, its seed, and the step its loss stopped being finite."""

    rate: float
    seed: int
    head: Head
    optimizer: torch.optim.AdamW
    diverged: int | None = None


class MapReader:
    """The maps of a frozen encoder for pictures of any side that is a multiple of 32.

    Where the encoder's stride does not divide the side, it sees the pictures at the nearest
    multiple of its stride; the maps still cover the same pictures.
    """

    def __init__(self, encoder: FrozenEncoder) -> None:
        self._encoder = encoder
        first = next(encoder.encoder.parameters(), None)
        self.device = torch.device("cpu") if first is None else first.device

    def read(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, s, s) uint8 -> {stride: (B, C, h, w)} float32, without gradient."""
        stride, side = self._encoder.stride, images.shape[-1]
        pictures = images.to(self.device).float() / 255
        if side % stride:
            seen = max(1, round(side / stride)) * stride
            pictures = F.interpolate(
                pictures, size=(seen, seen), mode="bilinear", antialias=True, align_corners=False
            )
        maps = self._encoder(pictures).maps
        return {stride: x.detach().float() for stride, x in maps.items()}

    def channels(self, side: int) -> dict[int, int]:
        """Widths of the maps by stride, read off a blank picture."""
        blank = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        return {stride: x.shape[1] for stride, x in self.read(blank).items()}


def train_heads(
    reader: MapReader,
    data: StepData,
    config: DetectionProbe,
    *,
    classes: int,
    identity: Mapping[str, object],
    folder: Path | None,
) -> list[Candidate]:
    """One trained head per rate and seed, in the order rates x seeds, in evaluation mode.

    Args:
        classes: with the background.
        identity: what a saved state must have been made with to be gone on from.
        folder: where states are saved and found; None saves none.
    """
    channels = reader.channels(config.size)
    candidates = [
        make_candidate(config, channels, classes, rate, seed, reader.device)
        for rate in config.grid
        for seed in config.seeds
    ]
    path = None if folder is None else folder / "state.safetensors"
    start = 0
    if path is not None and path.exists():
        start = load_state(path, candidates, identity)
        say(f"going on from step {start} of {len(data)} ({path})")
    total = len(data)
    steps = enumerate(data.batches(start), start=start)
    for step, batch in track(steps, label=f"{config.name} probe", total=total, done=start):
        maps = reader.read(batch.images)
        targets = [{k: v.to(reader.device) for k, v in t.items()} for t in batch.targets]
        share = config.schedule.at(step, data.steps_per_epoch) / config.schedule.rate
        for candidate in candidates:
            train_step(candidate, maps, batch.size, targets, share, step)
        if path is not None and ((step + 1) % config.save_every == 0 or step + 1 == total):
            save_state(path, candidates, step + 1, identity)
    for candidate in candidates:
        candidate.head.eval()
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
    with seeded(seed, WEIGHTS):
        head = config.build(channels, classes)
    head.to(device).train()
    return Candidate(rate, seed, head, _optimizer(head, rate, config))


def train_step(
    candidate: Candidate,
    maps: Mapping[int, Tensor],
    size: tuple[int, int],
    targets: list[dict[str, Tensor]],
    share: float,
    step: int,
) -> None:
    """One step at `share` of the peak rate; a loss that is not finite ends the head's training."""
    if candidate.diverged is not None:
        return
    for group in candidate.optimizer.param_groups:
        group["lr"] = share * candidate.rate
    device = next(iter(maps.values())).device
    with seeded(candidate.seed, LOSSES, step, device=device):
        losses = candidate.head.losses(maps, size, targets)
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        candidate.diverged = step
        say(f"rate {candidate.rate:g}, seed {candidate.seed}: the loss is {loss} at step {step}")
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
