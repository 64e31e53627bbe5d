"""Loss (1) of the paper and one step of the optimizer, on one rank or many.

L = λ_clip L_clip + Σ_t λ_t L_t                                       (section 3.2, equation 1)

L_clip compares all samples of the global batch; L_t is the mean over all its labelled pixels.
Where the configuration asks for them, RangeAugment's loss is a further term, and learnt variances
weigh the tasks (`cliptex.training.network.Uncertainty`).
Each rank computes its share of them, see `cliptex.training.distributed`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cliptex.data.joined import Batch
from cliptex.losses import DenseTargets, contrastive, sigmoid_contrastive
from cliptex.models.cliptex import CliptexOutput
from cliptex.training.config import RANGE_AUGMENT
from cliptex.training.distributed import World, gather_rows
from cliptex.training.network import DTYPES, bias_of, range_augment_of, uncertainty_of
from cliptex.training.parallel import (
    average_statistics,
    copy_statistics,
    finish_gradients,
    gradient_norm,
    gradients_at_end,
    restore_statistics,
    statistics_kept,
)
from cliptex.training.setup import Run


@dataclass(frozen=True)
class Agreed:
    """What all ranks know of a step before they compute it.

    rows: samples of each rank. pixels: task -> counted pixels of the global batch; empty where
    one rank computes the batch in one part. stop: some rank was asked to stop.
    """

    rows: tuple[int, ...]
    pixels: Mapping[str, float]
    stop: bool


@dataclass(frozen=True)
class StepReport:
    """What one step did; the same on all ranks.

    losses: "clip" and every task before weighting, and their weighted sum "total", all of the
        global batch.
    grad_norm: global norm before clipping.
    applied: False where something was not finite and the weights were not changed.
    """

    losses: dict[str, float]
    grad_norm: float
    applied: bool


def agree(world: World, batch: Batch, parts: int, stop: bool) -> Agreed:
    """Exchange sizes and label counts of the ranks' shares, and whether one wants to stop."""
    alone = world.size == 1 and parts == 1
    own = {} if alone else {name: t.counted().item() for name, t in batch.targets.items()}
    told = world.gather([len(batch.captions), stop, *own.values()])
    rows, stops, *pixels = zip(*told, strict=True)
    return Agreed(
        rows=tuple(int(n) for n in rows),
        pixels={name: sum(counts) for name, counts in zip(own, pixels, strict=True)},
        stop=any(stops),
    )


def split(batch: Batch, parts: int) -> list[Batch]:
    """`batch` in up to `parts` batches of nearly equal length."""
    total = len(batch.captions)
    edges = [total * part // parts for part in range(parts + 1)]
    return [rows_of(batch, slice(a, b)) for a, b in zip(edges, edges[1:], strict=False) if a < b]


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some samples of `batch`."""
    targets = {name: _target_rows(target, rows) for name, target in batch.targets.items()}
    return Batch(
        images=batch.images[rows],
        captions=batch.captions[rows],
        names=batch.names[rows],
        targets=targets,
    )


def _target_rows(targets: DenseTargets, rows: slice) -> DenseTargets:
    values = {field.name: getattr(targets, field.name) for field in fields(targets)}
    return replace(targets, **{n: v[rows] for n, v in values.items() if v is not None})


def compute_losses(run: Run, batch: Batch, agreed: Agreed) -> dict[str, Tensor]:
    """This rank's losses, float32 scalars: "clip", each task, weighted sum "total".

    Their mean over ranks is the loss of the global batch. The network runs under autocast where
    the configuration says so; the losses never.
    """
    out = forward(run, batch)
    bias = bias_of(run.model.clip, run.config)
    pair = (out.image_embedding, out.text_embedding)
    clip = _contrast(*pair, out.scale, bias, agreed.rows, run.world)
    return _with_total(run, {"clip": clip, **_own_losses(run, batch, out, agreed)})


def _contrast(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    rows: Sequence[int],
    world: World,
) -> Tensor:
    """() this rank's share of the loss; its mean over ranks is the loss of the global batch.

    Args:
        image, text: (B_rank, D) unit embeddings. scale: (). rows: samples of every rank.
        bias: () of the sigmoid form; None asks for the softmax form.
    """
    image, text, scale = image.float(), text.float(), scale.float()
    first, share = sum(rows[: world.rank]), world.size * len(image) / sum(rows)
    texts = gather_rows(text, rows, world)  # (B, D)
    if bias is not None:  # every pair is some rank's, and images need not travel
        return sigmoid_contrastive(image, texts, scale, bias, first) * share
    if world.size == 1:
        return contrastive(image, text, scale)
    return contrastive(image, text, scale, (gather_rows(image, rows, world), texts), first) * share


def forward(run: Run, batch: Batch) -> CliptexOutput:
    """The network's answers to `batch`, under autocast where the configuration says so."""
    device = run.world.device
    images = batch.images.to(device).float() / 255  # (B, 3, H, W)
    tokens = run.model.clip.tokenize(batch.captions).to(device)  # (B, L)
    dtype = DTYPES[run.config.precision]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return run.engine(images, tokens)


def _own_losses(run: Run, batch: Batch, out: CliptexOutput, agreed: Agreed) -> dict[str, Tensor]:
    """Each task's mean over own pixels, weighed by own over all pixels and the ranks.

    RangeAugment's, where there is one, is a mean over own images, weighed likewise.
    """
    losses = {}
    for name, task in run.tasks.items():
        targets = batch.targets[name]
        loss = task.loss(out.predictions[name].float(), targets.to(run.world.device))
        if name in agreed.pixels:  # 0 labelled pixels give 0, still in the graph of the head
            loss = loss * (run.world.size * targets.counted().item() / (agreed.pixels[name] or 1))
        losses[name] = loss
    augment = range_augment_of(run.model)
    if augment is not None and augment.loss is not None:
        share = run.world.size * len(batch.captions) / sum(agreed.rows)
        losses[RANGE_AUGMENT] = augment.loss * share
    return losses


def _with_total(run: Run, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    weighted = [_weighted(run, name, loss) for name, loss in losses.items()]
    return {**losses, "total": torch.stack(weighted).sum()}


def _weighted(run: Run, name: str, loss: Tensor, *, constant: bool = True) -> Tensor:
    """A term of the sum; `constant`: with what does not depend on the data, once per step."""
    uncertainty = uncertainty_of(run.model)
    if uncertainty is not None and name in run.tasks:
        loss = uncertainty(name, loss, constant=constant)
    return run.config.loss_weights[name] * loss


def train_step(run: Run, batch: Batch, agreed: Agreed) -> StepReport:
    """Losses, gradients and an update, unless the loss or a gradient is not finite."""
    run.optimizer.zero_grad(set_to_none=True)
    before = copy_statistics(run.norms)
    parts = min(run.config.accumulate, *agreed.rows)  # equal on all ranks
    if parts == 1:
        losses = compute_losses(run, batch, agreed)
        (losses["total"] * run.scale.value).backward()
    else:
        losses = _backward_in_parts(run, split(batch, parts), agreed)
    finish_gradients(run.engine, run.world)
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    norm = gradient_norm(gradients) / run.scale.value
    values = torch.stack([*(loss.detach() for loss in losses.values()), norm])
    *means, grad_norm = run.world.mean(values).tolist()  # the step's one wait for the device
    report = dict(zip(losses, means, strict=True))
    applied = math.isfinite(report["total"]) and math.isfinite(grad_norm)
    if applied:
        _rescale(gradients, grad_norm, run)
        run.optimizer.step()
        average_statistics(run.norms, run.world)
        if run.ema is not None:
            run.ema.update()
    else:
        restore_statistics(run.norms, before)
    run.scale.update(applied)
    return StepReport(report, grad_norm, applied)


def _rescale(gradients: list[Tensor], norm: float, run: Run) -> None:
    """Undo the loss scale, and clip to `clip_grad`."""
    limit = run.config.clip_grad
    factor = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
    if (factor := factor / run.scale.value) != 1:
        for gradient in gradients:
            gradient.mul_(factor)


def _backward_in_parts(run: Run, parts: list[Batch], agreed: Agreed) -> dict[str, Tensor]:
    """The gradient of the whole batch with the activations of one part at a time (GradCache).

    Gao et al. 2021: embed all parts without a graph; take the contrastive loss's gradient for the
    embeddings of the whole batch; embed each part again, with a graph, and send its rows of that
    gradient back. Every pass of a part draws the same random numbers; batch norms see the parts
    one by one, and count them only in the second pass.
    """
    seed = torch.initial_seed()
    with torch.no_grad(), statistics_kept(run.norms):
        first = [_seeded_forward(run, part, seed + i) for i, part in enumerate(parts)]
    image = torch.cat([out.image_embedding for out in first]).requires_grad_()  # (B_rank, D)
    text = torch.cat([out.text_embedding for out in first]).requires_grad_()
    scale = first[0].scale.detach().requires_grad_()
    bias = bias_of(run.model.clip, run.config)
    clip = _contrast(image, text, scale, bias, agreed.rows, run.world)
    inputs = (image, text, scale) if bias is None else (image, text, scale, bias)
    of_image, of_text, *of_numbers = torch.autograd.grad(
        run.config.loss_weights["clip"] * clip, inputs
    )
    sizes = [len(part.captions) for part in parts]
    losses: defaultdict[str, list[Tensor]] = defaultdict(list)
    for i, (part, d_image, d_text) in enumerate(
        zip(parts, of_image.split(sizes), of_text.split(sizes), strict=True)
    ):
        with gradients_at_end(run.engine, last := i == len(parts) - 1):
            out = _seeded_forward(run, part, seed + i)
            own = _own_losses(run, part, out, agreed)
            back = (out.image_embedding * d_image).sum() + (out.text_embedding * d_text).sum()
            for number, gradient in zip((out.scale, *inputs[3:]), of_numbers, strict=True):
                back = back + number * (gradient if last else 0)
            back = back + sum(_weighted(run, n, loss, constant=last) for n, loss in own.items())
            (back * run.scale.value).backward()
        for name, loss in own.items():
            losses[name].append(loss.detach())
    summed = {name: torch.stack(values).sum() for name, values in losses.items()}
    return _with_total(run, {"clip": clip.detach(), **summed})


def _seeded_forward(run: Run, part: Batch, seed: int) -> CliptexOutput:
    torch.manual_seed(seed)
    return forward(run, part)


@torch.no_grad()
def find_nonfinite_samples(run: Run, batch: Batch, agreed: Agreed, step: int) -> list[str]:
    """Names of the samples of a step whose embedding or dense losses are not finite.

    All names of the global batch where every sample by itself is finite, and for instance a
    gradient or the temperature overflowed. All ranks call it together, with their shares of the
    batch, and get the same names.
    """
    with statistics_kept(run.norms):
        out = forward(run, batch)
    bad = ~(out.image_embedding.isfinite().all(1) & out.text_embedding.isfinite().all(1))  # (B,)
    for name, task in run.tasks.items():
        predicted = out.predictions[name].float()
        for row in range(len(predicted)):
            target = rows_of(batch, slice(row, row + 1)).targets[name].to(run.world.device)
            bad[row] |= ~task.loss(predicted[row : row + 1], target).isfinite()
    flags = _of_all_ranks(bad, agreed, run)
    indices = run.sampler.batch_at(step).indices  # of the global batch, in the order of the ranks
    found = [index for index, flag in zip(indices, flags, strict=True) if flag] or indices
    return [":".join(run.dataset.shards.locate(index)) for index in found]


def _of_all_ranks(own: Tensor, agreed: Agreed, run: Run) -> list[bool]:
    """Every rank's flags in a row: (B_rank,) -> (B,)."""
    rows, longest = agreed.rows, max(agreed.rows)
    padded = own.tolist() + [False] * (longest - len(own))
    told = run.world.gather(padded)
    return [bool(flag) for part, n in zip(told, rows, strict=True) for flag in part[:n]]
