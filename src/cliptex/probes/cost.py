"""What probing costs before it begins: images, steps, arithmetic, memory and GPU-hours."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import nn

from cliptex.models.clip import Clip, describe_clip
from cliptex.models.config import PEAKS, HeadPrecision, OutputStride, Precision, spec_of
from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.models.flops import count_flops, count_training_flops
from cliptex.models.heads import upsample
from cliptex.probes.config import GroupConfig
from cliptex.probes.features import StorageType
from cliptex.probes.heads import HEADS
from cliptex.probes.method import held_count, steps_of
from cliptex.probes.recipes import Task, paper

OUTPUTS = {"depth": 1, "normals": 4}


@dataclass(frozen=True)
class Device:
    """Assumptions: one GPU's peaks in TFLOP/s by precision, and the share of them it reaches.

    Products in float32 often reach more than this share, small ones in bfloat16 less; no
    measurement of ours stands behind it.
    """

    name: str = "A100"
    peaks: Mapping[Precision, float] = field(default_factory=lambda: PEAKS["a100"])
    utilisation: float = 0.35

    def hours(self, flops: float, precision: Precision) -> float:
        return flops / (self.peaks[precision] * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True, kw_only=True)
class Job:
    """A probe group on one data set: counts of images and of outputs per pixel.

    val_images: of the split that several rates are chosen on; None where it is a part of train.
    stored: how features are kept, in a folder that holds none of them yet; None where they are not.
    """

    task: Task
    dataset: str
    train_images: int
    test_images: int
    outputs: int
    config: GroupConfig
    val_images: int | None = None
    stored: StorageType | None = None

    def of_seeds(self, seeds: tuple[int, ...]) -> Self:
        """The same with other seeds."""
        return replace(self, config=self.config.model_copy(update={"seeds": seeds}))


def paper_jobs() -> list[Job]:
    """The paper's dense and classification probes, on the usual splits of its data sets.

    Normals are learnt from the 30,907 frames of Qi et al. 2018, as in Bae et al. 2021.
    """
    sets: Sequence[tuple[Task, str, int, int, int]] = (
        ("segmentation", "voc", 10_582, 1_449, 21),
        ("segmentation", "ade20k", 20_210, 2_000, 150),
        ("depth", "nyu-depth", 795, 654, OUTPUTS["depth"]),
        ("normals", "nyu-normals", 30_907, 654, OUTPUTS["normals"]),
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
            config=paper(task),
        )
        for task, dataset, train, test, outputs in sets
    ]


@dataclass(frozen=True)
class Part:
    """What the encoder (no heads), or all heads of one kind, cost, and in which precision it runs.

    FLOPs count a multiply-add as two.
    """

    name: str
    heads: int
    flops: float
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One job's cost; memory and stored features are estimates in bytes.

    images: pictures of train, how often they are seen, and those of test. steps: with those of
    heads that learn again at the chosen rate. parts: the passes of the encoder, by its name, which
    all heads share, and each kind of head.
    """

    task: str
    dataset: str
    images: tuple[int, int, int]
    steps: int
    memory: float
    parts: tuple[Part, ...]
    stored: float = 0.0

    @property
    def flops(self) -> float:
        return sum(part.flops for part in self.parts)

    @property
    def heads(self) -> int:
        return sum(part.heads for part in self.parts)

    def on(self, encoder: str, times: int = 1) -> Self:
        """The cost of so many runs one after the other, on what is called `encoder`."""
        first, *heads = [
            replace(part, heads=times * part.heads, flops=times * part.flops) for part in self.parts
        ]
        return replace(
            self,
            steps=times * self.steps,
            parts=(replace(first, name=encoder), *heads),
            stored=times * self.stored,
        )


@dataclass(frozen=True)
class Rounds:
    """How many pictures go by while heads learn, are compared where there are several rates, and
    learn again at the chosen one; and steps of learning."""

    learnt: int
    compared: int
    again: int
    steps: int


def rounds_of(job: Job) -> Rounds:
    """What `train.Choice` does: a validation split leaves train whole, and nothing to refit."""
    config, every = job.config, job.train_images
    compared, kept, again, steps = 0, every, 0, 0
    if len(config.rates) > 1 and job.val_images is not None:
        compared = job.val_images
    elif len(config.rates) > 1:
        compared = held_count(every, config.holdout)
        kept = every - compared
        if config.refit:
            again, steps = config.epochs * every, steps_of(every, config)[0]
    return Rounds(config.epochs * kept, compared, again, steps + steps_of(kept, config)[0])


def cost_of(job: Job, encoder: FrozenEncoder) -> Cost:
    """Count one picture's arithmetic on the meta device, and multiply.

    Where features are stored each picture of train is encoded once, and those that compare rates
    once more. Memory: the encoder, heads with gradients and AdamW's two moments, the maps of a
    batch, four times the outputs of one head at the resolution, and a ViT's or CNN's largest layer
    as eight maps.
    """
    config = job.config
    dense = job.task != "classification"
    passes, features = encoder_pass(encoder, config.resolution)
    maps = features.maps[max(features.maps)] if dense else features.pooled[:, :, None, None]
    seeds, rates = len(config.seeds), len(config.rates)
    rounds = rounds_of(job)
    encoded = rounds.learnt + rounds.again if job.stored is None else job.train_images
    encoded += rounds.compared + job.test_images
    parts = [Part("encoder", 0, encoded * passes, config.precision)]
    memory = 4.0 * sum(p.numel() for p in encoder.encoder.parameters())
    memory += 4.0 * (1 + 8) * config.batch_size * maps.numel()
    for name in config.heads:
        head = _head(name, job, maps, encoder.stride)
        trained = rounds.learnt * seeds * rates + rounds.again * seeds
        scored = rounds.compared * seeds * rates + job.test_images * seeds
        flops = trained * count_training_flops(head, maps) + scored * count_flops(head, maps)[0]
        parts.append(Part(name, seeds * rates, flops, config.head_precision))
        memory += 16.0 * sum(p.numel() for p in head.parameters()) * seeds * rates
    side = config.resolution if dense else 1
    kept = 0 if job.stored is None else job.train_images * stored_bytes(maps, job.stored)
    return Cost(
        task=job.task,
        dataset=job.dataset,
        images=(job.train_images, config.epochs, job.test_images),
        steps=rounds.steps,
        memory=memory + 4 * 4.0 * config.batch_size * job.outputs * side * side,
        parts=tuple(parts),
        stored=kept,
    )


def stored_bytes(maps: torch.Tensor, dtype: StorageType) -> int:
    """Bytes that `features.pack` makes of (1, C, h, w) features."""
    if dtype == "float16":
        return 2 * maps.numel()
    scales = maps.shape[1] if maps[0, 0].numel() > 1 else 1  # float32
    return maps.numel() + 4 * scales


class _AtLabels(nn.Module):
    """A head with the interpolation of its outputs to labels of `side` pixels."""

    def __init__(self, head: nn.Module, side: int) -> None:
        super().__init__()
        self.head, self.size = head, (side, side)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return upsample(self.head(maps), self.size)


def _head(name: str, job: Job, maps: torch.Tensor, stride: int) -> nn.Module:
    """One head on the meta device; of the size of pictures to score it has that of training."""
    with torch.device("meta"):
        head = HEADS[name](maps.shape[1], job.outputs, stride, job.config)
    return _AtLabels(head, 1 if job.task == "classification" else job.config.resolution)


def described_encoder(model: str, output_stride: OutputStride | None = None) -> FrozenEncoder:
    """The image tower that a model's name means, on the meta device: shapes without weights."""
    config = describe_clip(spec_of(model, output_stride))
    with torch.device("meta"):
        return FrozenEncoder(Clip(config).image)


def encoder_pass(encoder: FrozenEncoder, side: int) -> tuple[float, Features]:
    """FLOPs of one picture of `side` pixels, and its features on the meta device."""
    model = copy.deepcopy(encoder.encoder).to("meta")
    seen = encoder.side(side)
    return count_flops(model, torch.empty(1, 3, seen, seen, device="meta"))


def cost_table(costs: Sequence[Cost], device: Device) -> str:
    """A job's encoder and each kind of head in a line, and their sum, with the assumptions."""
    head = f"{'task':15}{'data':13}{'images':>20}  {'part':11}{'heads':>5}{'steps':>9}"
    lines = [head + f"{'PFLOP':>10}{'GiB':>7}{'GPU-hours':>11}  in"]
    for cost in costs:
        images = "{} x {} + {}".format(*cost.images)
        start = f"{cost.task:15}{cost.dataset:13}{images:>20}  "
        memory = f"{cost.memory / 2**30:7.1f}"
        for part in cost.parts:
            hours = device.hours(part.flops, part.precision)
            numbers = f"{part.flops / 1e15:10.2f}{memory}{hours:11.2f}  {part.precision}"
            lines.append(f"{start}{part.name:11}{part.heads or '':>5}{cost.steps:9}{numbers}")
            start, memory = " " * len(start), " " * len(memory)
    parts = [part for cost in costs for part in cost.parts]
    total, memory = sum(part.flops for part in parts), max(c.memory for c in costs)
    heads, steps = sum(c.heads for c in costs), sum(c.steps for c in costs)
    hours = sum(device.hours(part.flops, part.precision) for part in parts)
    lines.append(
        f"{'sum':61}{heads:5}{steps:9}{total / 1e15:10.2f}{memory / 2**30:7.1f}{hours:11.2f}"
    )
    stored = sum(c.stored for c in costs)
    if stored:
        lines.append(f"{stored / 2**30:.2f} GiB of features are kept on disk")
    return "\n".join([*lines, _other_choices(parts, device), _assumptions(device)])


CHOICES: tuple[tuple[Precision, HeadPrecision], ...] = (
    ("fp32", "fp32"),
    ("tf32", "tf32"),
    ("bf16", "fp32"),
    ("bf16", "tf32"),
)


def _other_choices(parts: Sequence[Part], device: Device) -> str:
    """The hours that other precisions would take."""
    own = {(part.heads > 0): part.precision for part in parts}
    said = []
    for encoder, heads in CHOICES:
        if (encoder, heads) != (own.get(False), own.get(True)):
            chosen: dict[bool, Precision] = {False: encoder, True: heads}
            hours = sum(device.hours(part.flops, chosen[part.heads > 0]) for part in parts)
            said.append(f"{hours:.1f} with `precision={encoder}` `head_precision={heads}`")
    return f"GPU-hours would be {', '.join(said)}"


def _assumptions(device: Device) -> str:
    peaks = ", ".join(f"{peak:g} in {name}" for name, peak in device.peaks.items())
    return (
        f"GPU-hours at {device.utilisation:.0%} (assumed) of the dense peaks of {device.name}: "
        f"{peaks} TFLOP/s; GiB is an estimate for all heads at once that share an encoder's "
        "passes; reading and decoding pictures is not counted"
    )
