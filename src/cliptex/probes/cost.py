"""What probing costs before it begins: images, steps, arithmetic, memory and GPU-hours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.dense_heads import dense_head
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.sources import steps_of
from cliptex.probes.table8 import Task, paper_probes

OUTPUTS = {"depth": 1, "normals": 4}
TRAINING = 3  # a head's backward pass takes two products for every one of its forward pass


@dataclass(frozen=True, kw_only=True)
class Device:
    """Assumptions: peak of one GPU in TFLOP/s and the share of it that is reached."""

    peak_tflops: float = 312.0  # A100, dense bfloat16
    utilisation: float = 0.35

    def hours(self, flops: float) -> float:
        return flops / (self.peak_tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True, kw_only=True)
class Job:
    """A bank on one data set: counts of images and of outputs per pixel."""

    task: Task
    dataset: str
    train_images: int
    test_images: int
    outputs: int
    config: BankConfig


def paper_jobs() -> list[Job]:
    """The paper's dense and classification probes, on the usual splits of its data sets."""
    sets: Sequence[tuple[Task, str, int, int, int]] = (
        ("segmentation", "voc", 10_582, 1_449, 21),
        ("segmentation", "ade20k", 20_210, 2_000, 150),
        ("depth", "nyu-depth", 795, 654, OUTPUTS["depth"]),
        ("normals", "nyu-normals", 795, 654, OUTPUTS["normals"]),
        ("classification", "imagenet", 1_281_167, 50_000, 1000),
        ("classification", "places365", 1_803_460, 36_500, 365),
    )
    return [
        Job(
            task=task,
            dataset=dataset,
            train_images=train,
            test_images=test,
            outputs=outputs,
            config=paper_probes(task),
        )
        for task, dataset, train, test, outputs in sets
    ]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One job's cost. FLOPs count a multiply-add as two; memory is an estimate in bytes.

    images: pictures of train, how often they are seen, and those of test.
    """

    task: str
    dataset: str
    images: tuple[int, int, int]
    heads: int
    steps: int
    flops: float
    memory: float


def cost_of(job: Job, encoder: FrozenEncoder) -> Cost:
    """Count one picture's arithmetic on the meta device, and multiply.

    With several rates the bank also refits what it chose; that is included. Memory: the encoder,
    heads with gradients and AdamW's two moments, the maps of a batch, four times the outputs of
    one head at the resolution, and a ViT's or CNN's largest layer as eight maps.
    """
    config = job.config
    dense = job.task != "classification"
    passes, (channels, height, width) = encoder_flops(encoder, config.resolution, dense=dense)
    head_flops, head_bytes = _heads(job, channels, height, width, encoder.stride)
    seeds, rates = len(config.seeds), len(config.rates)
    trained = seeds * rates
    steps, _ = steps_of(job.train_images, config)
    seen = config.epochs * job.train_images
    flops = seen * (passes + TRAINING * trained * head_flops)
    if rates > 1 and config.refit:
        flops += seen * (passes + TRAINING * seeds * head_flops)
    flops += job.test_images * (passes + seeds * head_flops)
    side = config.resolution if dense else 1
    cells = config.batch_size * channels * height * width
    memory = 4.0 * sum(p.numel() for p in encoder.encoder.parameters())
    memory += trained * head_bytes + 4.0 * (1 + 8) * cells
    memory += 4 * 4.0 * config.batch_size * job.outputs * side * side
    return Cost(
        task=job.task,
        dataset=job.dataset,
        images=(job.train_images, config.epochs, job.test_images),
        heads=trained * len(config.heads),
        steps=steps,
        flops=flops,
        memory=memory,
    )


def _heads(job: Job, channels: int, height: int, width: int, stride: int) -> tuple[float, float]:
    """FLOPs per picture, and bytes of training state, of one head of each kind together."""
    config, flops, size = job.config, 0.0, 0.0
    for name in config.heads:
        form: dict[str, Any] = {"stride": stride, "width": config.width, "norm": config.norm}
        with torch.device("meta"):
            head = dense_head(name, channels, job.outputs, **form).eval()
            maps = torch.empty(1, channels, height, width)
        flops += counted(head, maps)
        size += 16.0 * sum(p.numel() for p in head.parameters())
    return flops, size


def encoder_flops(
    encoder: FrozenEncoder, side: int, *, dense: bool
) -> tuple[float, tuple[int, int, int]]:
    """FLOPs of one picture of `side` pixels, and the (C, h, w) that heads read."""
    model = copy.deepcopy(encoder.encoder).to("meta")
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused kernel, which nobody counts
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = model(torch.empty(1, 3, side, side, device="meta"))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    last = features.maps[max(features.maps)] if dense else features.pooled[:, :, None, None]
    return float(counter.get_total_flops()), (last.shape[1], last.shape[2], last.shape[3])


def counted(module: torch.nn.Module, x: torch.Tensor) -> float:
    """FLOPs of one forward pass."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return float(counter.get_total_flops())


def cost_table(costs: Sequence[Cost], device: Device) -> str:
    """One line per job and their sum, with the assumptions."""
    head = f"{'task':15}{'data':13}{'images':>20}{'heads':>6}{'steps':>9}"
    lines = [head + f"{'PFLOP':>11}{'GiB':>7}{'GPU-hours':>11}"]
    for cost in costs:
        images = "{} x {} + {}".format(*cost.images)
        lines.append(
            f"{cost.task:15}{cost.dataset:13}{images:>20}{cost.heads:6}{cost.steps:9}"
            f"{cost.flops / 1e15:11.2f}{cost.memory / 2**30:7.1f}{device.hours(cost.flops):11.2f}"
        )
    total, memory = sum(c.flops for c in costs), max(c.memory for c in costs)
    heads, steps = sum(c.heads for c in costs), sum(c.steps for c in costs)
    lines.append(
        f"{'sum':48}{heads:6}{steps:9}"
        f"{total / 1e15:11.2f}{memory / 2**30:7.1f}{device.hours(total):11.2f}"
    )
    lines.append(
        f"GPU-hours at {device.utilisation:.0%} of {device.peak_tflops:g} TFLOP/s; memory is the "
        "largest estimate; reading and decoding pictures is not counted"
    )
    return "\n".join(lines)
