"""Everything that a probe's number depends on: rates over time, and three forms of probe.

The recipes of `cliptex.probes.recipes` are functions that return one of these configurations.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptex.data.transforms import Augmentation
from cliptex.metrics.scorers import Protocol
from cliptex.models.config import WIDTH, HeadPrecision, MaskRcnnForm, Norm, Precision
from cliptex.models.detection.ssd import LAYERS, SsdForm
from cliptex.probes.augment import CropAugmentation


def half_cosine(share: float, low: float) -> float:
    """From 1 at `share` 0 down to `low` at `share` 1."""
    return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2


class Schedule(BaseModel):
    """Linear warm-up, then a half cosine to `min_lr` or drops at epochs, in the terms of Table 8.

    lr: the maximum. warmup_steps: steps from `warmup_init_lr` up to it. min_lr: at the last step
    of a cosine. milestones, gamma: epochs (from 0) at whose start a multi-step rate is multiplied.
    The authors' library moves its cosine once per epoch; here it moves with every step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cosine", "multi-step"] = "cosine"
    lr: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_init_lr: float = Field(default=0.0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "multi-step") != bool(self.milestones):
            raise ValueError("`milestones` belong to kind='multi-step' and are required there")
        return self

    def check(self, steps: int) -> None:
        """ValueError where the warm-up would not end within `steps`."""
        if self.warmup_steps >= steps:
            raise ValueError(
                f"`warmup_steps`: {self.warmup_steps} steps of warm-up do not fit into {steps} "
                "steps of training; set fewer of them, or more `epochs`"
            )

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The rate of `step` (0 .. steps - 1) over `lr`.

        Rates of a grid other than `lr` use the same factor, so warm-up start and minimum scale
        with them.
        """
        if step < self.warmup_steps:
            start = self.warmup_init_lr / self.lr
            return start + step / self.warmup_steps * (1 - start)
        if self.kind == "multi-step":
            return self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)
        length = steps - 1 - self.warmup_steps
        share = (step - self.warmup_steps) / length if length > 0 else 1.0
        return half_cosine(share, self.min_lr / self.lr)


class RelativeSchedule(BaseModel):
    """Linear warm-up over a share of all steps, then a half cosine to a share of the rate.

    It fits every number of steps and every rate of a grid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup: float = Field(default=0.05, ge=0, lt=1)
    min_factor: float = Field(default=0.01, ge=0, le=1)

    def check(self, steps: int) -> None:
        """Nothing: it fits every number of steps."""

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The rate of `step` (0 .. steps - 1) over the highest."""
        warmup = round(self.warmup * steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return half_cosine(min(1.0, (step - warmup) / max(1, steps - warmup)), self.min_factor)


class ProbeConfig(BaseModel):
    """What all probes have: how heads learn, and how one of several learning rates is chosen.

    recipe: what rows call this configuration; rows of two recipes are never compared.
    schedule, learning_rates: one schedule; rates other than its own scale all of it. Empty means
        the schedule's rate alone, and then nothing is chosen.
    seeds: each starts every head anew and drives its own randomness (dropout, samples of a loss).
        `data_seed` alone decides the order of pictures and their augmentation, which all share.
    epochs, batch_size: length of the training, and pictures per step.
    weight_decay: of AdamW, for the weights of convolutions.
    resolution: side in pixels of training crops, and of the square to which whole pictures are
        squashed for evaluation (as the authors' library evaluates ViTs). The encoder sees the
        nearest multiple of its stride.
    holdout: share of the training pictures on which a rate is chosen where there is no validation
        split. refit: whether the chosen rate is then trained on the whole of train.
    precision: of the encoder. head_precision: of heads' products; losses and metrics are float32.
    extract_batch: pictures per encoder pass in evaluation. workers: threads (detection: processes)
        that read pictures. save_every: steps between two saved states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    RUNTIME: ClassVar[frozenset[str]] = frozenset({"extract_batch", "workers", "save_every"})
    """Fields that change no number."""

    recipe: str = ""
    schedule: Schedule | RelativeSchedule
    learning_rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    data_seed: int = 0
    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=32, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    resolution: int = Field(default=512, gt=0)
    holdout: float = Field(default=0.2, gt=0, lt=1)
    refit: bool = True
    precision: Precision = "fp32"
    head_precision: HeadPrecision = "fp32"
    extract_batch: int = Field(default=16, gt=0)
    workers: int = Field(default=2, ge=0)
    save_every: int = Field(default=200, gt=0)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in ("heads", "learning_rates", "seeds"):
            values = getattr(self, name, ())
            if len(set(values)) < len(values):
                raise ValueError(f"`{name}`: {values} contains a value twice")
        if not all(0 < rate < float("inf") for rate in self.learning_rates):
            raise ValueError(f"`learning_rates`: {self.learning_rates} must be positive")
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid of learning rates."""
        if isinstance(self.schedule, Schedule):
            return self.learning_rates or (self.schedule.lr,)
        return self.learning_rates

    @property
    def names(self) -> tuple[str, ...]:
        """Of the heads, as rows have them."""
        raise NotImplementedError

    @property
    def chooses(self) -> bool:
        """Whether rates are compared."""
        return len(self.rates) > 1

    def protocol(self) -> dict[str, object]:
        """What belongs into every row, JSON-able; not what differs from row to row."""
        raise NotImplementedError

    def _told(self, *names: str) -> dict[str, object]:
        """Fields as JSON; the heads' precision where it is not that of float32."""
        told = self.model_dump(mode="json", include=set(names))
        if self.head_precision != "fp32":
            told["head_precision"] = self.head_precision
        return told


class MapConfig(ProbeConfig):
    """Of dense probes and classification: how predictions are scored, and depth is learnt.

    depth_range: metres; depth outside is ignored in training.
    protocols: rules by which the same predictions are scored, one set of rows each; the first one
        chooses the rate. Empty: `LASINGER` for depth, the whole picture for other kinds.
    things: class names averaged in `miou_things`; None takes all classes but `background` where
        there is one, and gives no such row where there is none.
    """

    depth_range: tuple[float, float] = (0.0, 10.0)
    protocols: tuple[Protocol, ...] = ()
    things: tuple[str, ...] | None = None


class FastConfig(MapConfig):
    """Linear heads on cached features of whole pictures, all learning rates side by side.

    schedule, epochs: Table 8 has 50 epochs (40 for classification); features are cached and
        standardised here, so that a linear head converges in far fewer.
    min_steps: small sets are gone through more often, until there are so many steps.
    learning_rates: the grid, for standardised features, of which one is chosen per model: one
        fixed small rate would measure the scale of features, not their content.
    seeds: of weights, order, pixels and the held-out part: each is a training of its own.
    standardise: whether channels get mean 0 and variance 1 / C over train (vectors of about unit
        norm, so that one grid of rates fits narrow and wide encoders). A fixed linear map, folded
        into the head afterwards, so that the head still is one point-wise convolution.
    pixels: side of the grid of label pixels drawn per picture and step. Rows and columns are
        drawn at random within strata, and logits are interpolated to exactly these pixels; the
        expected loss is that over all pixels (see `probes.linear`).
    feature_dtype: how features are cached; float16 keeps 11 bits.
    memory_budget: bytes of cached features and labels in memory; what exceeds it goes to memory-
        mapped files in `scratch` (default: the system's temporary folder), of which nothing is left
        at the end.
    """

    recipe: str = "fast"
    schedule: Schedule | RelativeSchedule = RelativeSchedule()
    epochs: int = Field(default=12, gt=0)
    min_steps: int = Field(default=200, ge=0)
    learning_rates: tuple[float, ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=1
    )
    weight_decay: float = Field(default=0.01, ge=0)
    standardise: bool = True
    pixels: int = Field(default=8, gt=0)
    extract_batch: int = Field(default=64, gt=0)
    feature_dtype: Literal["float16", "float32"] = "float16"
    memory_budget: int = 4 << 30
    scratch: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The linear head's."""
        return ("linear",)

    @property
    def chooses(self) -> bool:
        """Always: rows say what the rate scores on pictures that it was not trained on."""
        return True

    def protocol(self) -> dict[str, object]:
        """What belongs into a row of every task, JSON-able."""
        told = self._told("recipe", "resolution", "epochs", "min_steps", "batch_size")
        told |= self._told("weight_decay", "refit", "standardise", "precision")
        return {**told, **self.schedule.model_dump(mode="json")}


class GroupConfig(MapConfig):
    """A probe group: every head x learning rate x seed, trained on one encoder pass per batch.

    heads: names in `probes.heads.HEADS`; classification supports only the linear head.
    batch_size: the last batch of an epoch may be smaller.
    weight_decay: biases and norms do not decay.
    augmentation: of training; None squashes pictures as in evaluation, which cached features need.
    width, norm, dropout: of DeepLabv3 and PSPNet.
    align_corners: of the interpolation of outputs to labels; True in the authors' library.
    """

    schedule: Schedule
    heads: tuple[str, ...] = Field(default=("linear",), min_length=1)
    betas: tuple[float, float] = (0.9, 0.999)
    augmentation: CropAugmentation | Augmentation | None = None
    width: int = Field(default=WIDTH, gt=0)
    norm: Norm = "group"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    align_corners: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the heads."""
        return self.heads

    def protocol(self) -> dict[str, object]:
        """What belongs into every row, JSON-able; not what differs from row to row."""
        told = self._told("recipe", "schedule", "epochs", "batch_size", "weight_decay", "betas")
        told |= self._told("resolution", "augmentation", "width", "norm", "dropout")
        return told | self._told("align_corners", "refit", "data_seed", "precision")


class DetectionConfig(ProbeConfig):
    """Mask R-CNN or SSD on the encoder's maps.

    head: sizes and thresholds; its type says which of the two this is.
    resolution: side of the square that pictures are squashed to for evaluation; a multiple of 32.
    train_sizes: sides that a training step draws one of; (resolution,) where empty.
    batch_size: what is left of an epoch's order is dropped.
    augment: flip (left-right, half of the time), or ssd (also the crops and colour distortions of
        Liu et al. 2015).
    decay_biases: whether `weight_decay` applies to biases and norms.
    holdout: only several rates are chosen on held-out pictures; with one, all are learnt from.
    """

    schedule: Schedule
    head: MaskRcnnForm | SsdForm
    resolution: int = Field(gt=0, multiple_of=32)
    train_sizes: tuple[int, ...] = ()
    augment: Literal["flip", "ssd"]
    decay_biases: bool
    holdout: float = Field(default=0.1, gt=0, lt=1)
    refit: bool = False
    extract_batch: int = Field(default=4, gt=0)
    workers: int = Field(default=0, ge=0)
    save_every: int = Field(default=500, gt=0)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        odd = [side for side in self.train_sizes if side % 32 or side <= 0]
        if odd:
            raise ValueError(f"`train_sizes`: {odd} are not multiples of 32")
        if self.batch_size == 1 and isinstance(self.head, SsdForm):
            side = min(self.sides)
            if single := self.head.single_cells(side):
                raise ValueError(
                    f"`batch_size` 1: SSD's level of stride {single[0]} is one cell of a picture "
                    f"of {side} pixels, and batch normalisation needs two values or more; set "
                    f"`batch_size` to 2, or a resolution above {single[-1]}"
                )
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """Of training pictures."""
        return self.train_sizes or (self.resolution,)

    @property
    def name(self) -> str:
        """The head's name in results."""
        return "mask_rcnn" if self.masks else "ssd"

    @property
    def names(self) -> tuple[str, ...]:
        """The head's alone."""
        return (self.name,)

    @property
    def masks(self) -> bool:
        """Whether masks are learnt and scored."""
        return isinstance(self.head, MaskRcnnForm)

    def protocol(self) -> dict[str, object]:
        """What belongs into a row, JSON-able."""
        told = self._told("recipe", "schedule", "epochs", "batch_size", "weight_decay", "holdout")
        told |= self._told("train_sizes", "augment", "decay_biases", "data_seed", "precision")
        told |= {"size": self.resolution, "head": asdict(self.head)}
        if self.refit:
            told["refit"] = True
        return told if self.masks else {**told, "layers": LAYERS}
