"""What probing costs before it begins: images, steps, arithmetic, memory and GPU-hours."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from cliptex.datasets.catalogue import Task
from cliptex.models.clip import Clip, describe_clip
from cliptex.models.config import (
    PEAKS,
    HeadPrecision,
    MaskRcnnForm,
    OutputStride,
    Precision,
    spec_of,
)
from cliptex.models.detection.ssd import SsdHead
from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.models.flops import count_flops, count_training_flops
from cliptex.models.heads import upsample
from cliptex.probes.boxes import build_detector
from cliptex.probes.config import DetectionConfig, GroupConfig
from cliptex.probes.features import StorageType
from cliptex.probes.heads import HEADS
from cliptex.probes.method import held_count, steps_of

FLOPS_PER_VALUE = 500  # of detection heads, per stored activation


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
        """Hours that so many operations take."""
        return flops / (self.peaks[precision] * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True)
class Counts:
    """What must be known of a data set.

    train: images to learn from (detection: those with objects). test: images to score.
    outputs: per pixel, or per image; detection: classes with the background.
    val: images of the split that several rates are compared on; None: a part of train.
    """

    task: Task
    dataset: str
    train: int
    test: int
    outputs: int
    val: int | None = None


PAPER_SETS = (
    Counts("segmentation", "voc", 10_582, 1_449, 21),
    Counts("segmentation", "ade20k", 20_210, 2_000, 150),
    Counts("detection", "coco", 117_266, 5_000, 81),
    Counts("depth", "nyu-depth", 795, 654, 1),
    Counts("normals", "nyu-normals", 30_907, 654, 4),
    Counts("classification", "imagenet", 1_281_167, 50_000, 1000),
    Counts("classification", "places365", 1_803_460, 36_500, 365),
)
"""The paper's data sets in the order of Table 8, on their usual splits. Normals are learnt from the
30,907 frames of Qi et al. 2018, as in Bae et al. 2021; of COCO 2017 from the annotated pictures."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Heads that share the passes of an encoder over one data set.

    stored: storage type of cached features, in a folder that holds none yet; None: not cached.
    """

    data: Counts
    config: GroupConfig | DetectionConfig
    stored: StorageType | None = None

    def of_seeds(self, seeds: tuple[int, ...]) -> Self:
        """The same with other seeds."""
        return replace(self, config=self.config.model_copy(update={"seeds": seeds}))


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
        """Of all parts."""
        return sum(part.flops for part in self.parts)

    @property
    def heads(self) -> int:
        """Of all kinds, seeds and rates."""
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
    learn again at the chosen one; steps of learning; and pictures in one of them."""

    learnt: int
    compared: int
    again: int
    steps: int
    batch: int


def rounds_of(job: Job) -> Rounds:
    """What training does: a validation split leaves train whole, and nothing to learn again."""
    config, every, val = job.config, job.data.train, job.data.val
    compared, kept, again, steps = 0, every, 0, 0
    if len(config.rates) > 1 and val is not None:
        compared = val
    elif len(config.rates) > 1:
        compared = held_count(every, config.holdout)
        kept = every - compared
        if config.refit:
            again, steps, _ = _seen(every, config)
    learnt, first, batch = _seen(kept, config)
    return Rounds(learnt, compared, again, steps + first, batch)


def _seen(count: int, config: GroupConfig | DetectionConfig) -> tuple[int, int, int]:
    """Pictures that go by while heads learn from `count` of them, steps, and pictures a step."""
    if isinstance(config, GroupConfig):
        return config.epochs * count, steps_of(count, config)[0], config.batch_size
    batch = max(1, min(config.batch_size, count))  # what is left of an epoch is dropped
    steps = config.epochs * (count // batch)
    return steps * batch, steps, batch


@dataclass(frozen=True)
class _Head:
    """One head: its parameters, and FLOPs per picture of learning and of scoring."""

    name: str
    parameters: int
    learn: float
    score: float


@dataclass(frozen=True)
class _Picture:
    """FLOPs of the encoder for a picture of training and for one to score, the heads, and bytes of
    a picture in a training step and of its stored features."""

    learn: float
    score: float
    heads: list[_Head]
    memory: float
    stored: int = 0


def cost_of(job: Job, encoder: FrozenEncoder) -> Cost:
    """Count one picture's arithmetic on the meta device, and multiply.

    Where features are stored each picture of train is encoded once, and those that compare rates
    once more. Memory: the encoder, heads with gradients and AdamW's two moments, and what a batch
    takes (`_on_maps`, `_on_boxes`).
    """
    data, config, rounds = job.data, job.config, rounds_of(job)
    if isinstance(config, DetectionConfig):
        one = _on_boxes(config, data.outputs, encoder)
    else:
        one = _on_maps(config, job, encoder)
    seeds, rates = len(config.seeds), len(config.rates)
    encoded = rounds.learnt + rounds.again if job.stored is None else data.train
    flops = encoded * one.learn + (rounds.compared + data.test) * one.score
    parts = [Part("encoder", 0, flops, config.precision)]
    memory = 4.0 * _parameters(encoder.encoder)
    for head in one.heads:
        trained = rounds.learnt * seeds * rates + rounds.again * seeds
        scored = rounds.compared * seeds * rates + data.test * seeds
        flops = trained * head.learn + scored * head.score
        parts.append(Part(head.name, seeds * rates, flops, config.head_precision))
        memory += 16.0 * head.parameters * seeds * rates
    return Cost(
        task=data.task,
        dataset=data.dataset,
        images=(data.train, config.epochs, data.test),
        steps=rounds.steps,
        memory=memory + rounds.batch * one.memory,
        parts=tuple(parts),
        stored=data.train * one.stored,
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _on_maps(config: GroupConfig, job: Job, encoder: FrozenEncoder) -> _Picture:
    """Heads on the map, or on pooled features as a map of one cell.

    Memory: a picture's map, a ViT's or CNN's largest layer as eight maps, and four times the
    outputs of one head at the resolution.
    """
    dense, outputs = job.data.task != "classification", job.data.outputs
    passes, features = encoder_pass(encoder, config.resolution)
    maps = features.maps[max(features.maps)] if dense else features.pooled[:, :, None, None]
    side = config.resolution if dense else 1
    heads = []
    for name in config.heads:
        with torch.device("meta"):
            head = HEADS[name](maps.shape[1], outputs, encoder.stride, config)
        whole = _AtLabels(head, side)  # a picture to score is taken to have the side of training
        learn, score = count_training_flops(whole, maps), count_flops(whole, maps)[0]
        heads.append(_Head(name, _parameters(head), learn, score))
    memory = 4.0 * (1 + 8) * maps.numel() + 4 * 4.0 * outputs * side * side
    stored = 0 if job.stored is None else stored_bytes(maps, job.stored)
    return _Picture(passes, passes, heads, memory, stored)


def _on_boxes(config: DetectionConfig, classes: int, encoder: FrozenEncoder) -> _Picture:
    """Mask R-CNN or SSD, with training counted at the median of its sizes.

    Memory: the activations that the heads' arithmetic would fill at one value per 500 FLOPs.
    """
    sides = sorted(config.sides)
    middle = sides[len(sides) // 2]
    passes, features = encoder_pass(encoder, middle)
    looks, seen_again = encoder_pass(encoder, config.resolution)
    channels = {stride: x.shape[1] for stride, x in features.maps.items()}
    with torch.random.fork_rng([]):
        head = build_detector(config, channels, classes).to("meta")
    learning = Products(config, head, middle, train=True)
    forward = count_flops(learning, features.maps)[0]
    both = count_training_flops(learning, features.maps)
    scoring = Products(config, head, config.resolution, train=False)
    found = count_flops(scoring, seen_again.maps)[0]
    one = _Head(config.name, _parameters(head), both, found)
    return _Picture(passes, looks, [one], 4.0 * forward / FLOPS_PER_VALUE)


def stored_bytes(maps: Tensor, dtype: StorageType) -> int:
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

    def forward(self, maps: Tensor) -> Tensor:
        return upsample(self.head(maps), self.size)


class Products(nn.Module):
    """The layers of a detection head, on the meta device, for one picture of `side` pixels.

    On as many boxes as it is given at most, without the search for boxes in between, which has no
    products and cannot run on the meta device. Returns the outputs of all layers.
    """

    def __init__(self, config: DetectionConfig, head: nn.Module, side: int, *, train: bool) -> None:
        super().__init__()
        self.head, self.size = head, (side, side)
        self.boxes = self.masks = 0
        form = config.head
        if isinstance(form, MaskRcnnForm):
            self.boxes = form.rois if train else form.test_proposals[1]
            self.masks = round(form.rois * form.roi_positive) if train else form.detections

    def forward(self, maps: dict[int, Tensor]) -> list[Tensor]:
        model: Any = self.head.model
        levels = model.backbone(maps, self.size)
        if isinstance(self.head, SsdHead):
            return list(model.head(levels).values())
        outputs = [x for level in model.rpn.head(list(levels.values())) for x in level]
        width = model.backbone.out_channels
        heads = model.roi_heads
        outputs += heads.box_predictor(heads.box_head(self._pooled(self.boxes, width, 7)))
        masks = heads.mask_head(self._pooled(self.masks, width, 14))
        return [*outputs, heads.mask_predictor(masks)]

    def _pooled(self, count: int, width: int, side: int) -> Tensor:
        """What is cut out of the pyramid, to which the gradient goes on."""
        return torch.empty(count, width, side, side, device="meta", requires_grad=True)


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
        lines.append(f"{stored / 2**30:.2f} GiB of features are stored on disk")
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
