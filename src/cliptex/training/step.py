"""Loss (1) of the paper and one step of the optimizer.

L = λ_clip L_clip + Σ_t λ_t L_t                                       (section 3.2, equation 1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cliptex.data.joined import Batch
from cliptex.losses import contrastive
from cliptex.tasks import Task
from cliptex.training.config import TrainConfig
from cliptex.training.network import Network


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    losses: "clip" and every task before weighting, and their weighted sum "total".
    grad_norm: global norm before clipping; NaN where no gradient was computed.
    applied: False where something was not finite and the weights were left alone.
    """

    losses: dict[str, float]
    grad_norm: float
    applied: bool


def compute_losses(
    model: Network, batch: Batch, tasks: Mapping[str, Task], config: TrainConfig
) -> dict[str, Tensor]:
    """The losses of a batch, each a float32 scalar: "clip", each task, weighted sum "total".

    The network runs under bfloat16 autocast where the configuration says so; the losses never.
    """
    device = next(model.parameters()).device
    images = batch.images.to(device, non_blocking=True).float() / 255  # (B, 3, H, W)
    tokens = model.clip.tokenize(batch.captions).to(device, non_blocking=True)  # (B, L)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        image, text, scale, predictions = model(images, tokens)
    losses = {"clip": contrastive(image.float(), text.float(), scale.float())}
    for name, task in tasks.items():
        targets = batch.targets[name].to(device)
        losses[name] = task.loss(predictions[name].float(), targets)
    weighted = [config.loss_weights[name] * loss for name, loss in losses.items()]
    return {**losses, "total": torch.stack(weighted).sum()}


def train_step(
    model: Network,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    tasks: Mapping[str, Task],
    config: TrainConfig,
) -> StepReport:
    """Losses, gradients and an update, unless the loss or a gradient is not finite."""
    losses = compute_losses(model, batch, tasks, config)
    values = {name: loss.item() for name, loss in losses.items()}
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(values["total"]):
        return StepReport(values, math.nan, applied=False)
    losses["total"].backward()
    limit = math.inf if config.clip_grad is None else config.clip_grad
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), limit).item()
    applied = math.isfinite(grad_norm)
    if applied:
        optimizer.step()
    return StepReport(values, grad_norm, applied)
