"""Everything a detection probe's number depends on, and the named recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptex.models.config import HeadPrecision, MaskRcnnForm, Precision, SsdForm
from cliptex.models.detection.mask_rcnn import MaskRcnnHead
from cliptex.models.detection.ssd import LAYERS, SsdHead
from cliptex.probes.detection.ap import Overlap
from cliptex.probes.protocol import head_facts
from cliptex.probes.schedule import Schedule

Head = MaskRcnnHead | SsdHead
RUNTIME = ("save_every", "workers", "evaluation_batch")
"""Fields that change no number."""


class DetectionProbe(BaseModel):
    """A detection probe: head, data, optimiser, schedule, and how its rate is chosen.

    recipe: what rows call this configuration; rows of two recipes are never compared.
    head: sizes and thresholds; its type says whether this is Mask R-CNN or SSD.
    schedule, epochs: the learning rate over that many passes over the pictures.
    size: side in pixels of the square that pictures are squashed to for evaluation; a multiple
        of 32. Encoders whose stride does not divide it see the nearest multiple of their stride.
    train_sizes: sides that a training step draws one of; (size,) where empty. The batch stays.
    batch_size: pictures per step, over all devices. What is left of an epoch's order is dropped.
    augment: flip (left-right, half of the time), or ssd (also the crops and colour distortions of
        Liu et al. 2015).
    rates: peak learning rates, trained side by side; the schedule's other rates scale along.
        Empty: that of the schedule.
    seeds: each of weights and of the samples drawn in losses; the order of pictures, their sizes
        and augmentation are those of `data_seed` for all.
    weight_decay, decay_biases: AdamW's, and whether it applies to biases and norms.
    holdout: share of the training pictures that several rates are chosen on, where there is no
        validation set. With one rate all are learnt from.
    precision: of the encoder. head_precision: of heads' products; losses and metrics are float32.
    save_every, workers: steps between saved states; processes that read pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = ""
    head: MaskRcnnForm | SsdForm
    schedule: Schedule
    epochs: int = Field(gt=0)
    size: int = Field(gt=0, multiple_of=32)
    train_sizes: tuple[int, ...] = ()
    batch_size: int = Field(gt=0)
    augment: Literal["flip", "ssd"]
    rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    weight_decay: float = Field(ge=0)
    decay_biases: bool
    holdout: float = Field(default=0.1, gt=0, lt=1)
    data_seed: int = 0
    precision: Precision = "fp32"
    head_precision: HeadPrecision = "fp32"
    save_every: int = Field(default=500, gt=0)
    workers: int = Field(default=0, ge=0)
    evaluation_batch: int = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _checked(self) -> DetectionProbe:
        odd = [side for side in self.train_sizes if side % 32 or side <= 0]
        if odd:
            raise ValueError(f"train_sizes {odd} are not multiples of 32")
        for field in ("rates", "seeds"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} {values} repeat themselves")
        if not all(0 < rate < float("inf") for rate in self.rates):
            raise ValueError(f"rates {self.rates} must be positive")
        if self.batch_size == 1 and isinstance(self.head, SsdForm):
            side = min(self.train_sizes or (self.size,))
            if single := self.head.single_cells(side):
                raise ValueError(
                    f"batch_size 1: SSD's level of stride {single[0]} is one cell of a picture of "
                    f"{side} pixels, and batch normalisation needs two values or more; take two "
                    f"pictures, or a size above {single[-1]}"
                )
        return self

    @property
    def name(self) -> str:
        """The probe's name in results."""
        return "mask_rcnn" if self.masks else "ssd"

    @property
    def masks(self) -> bool:
        """Whether masks are learnt and scored."""
        return isinstance(self.head, MaskRcnnForm)

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Between what AP is measured: boxes, and masks where there are any."""
        return ("bbox", "segm") if self.masks else ("bbox",)

    @property
    def grid(self) -> tuple[float, ...]:
        """The peak rates that are trained."""
        return self.rates or (self.schedule.lr,)

    def build(self, channels: Mapping[int, int], classes: int) -> Head:
        """An untrained head over maps of `channels` by stride; `classes` with the background."""
        if isinstance(self.head, MaskRcnnForm):
            return MaskRcnnHead(channels, classes, self.head)
        return SsdHead(channels, classes, self.head)

    def protocol(self) -> dict[str, object]:
        """What belongs into a row, JSON-able."""
        left_out = {"head", "head_precision", "rates", "seeds", *RUNTIME}
        told = {**self.model_dump(mode="json", exclude=left_out), "head": asdict(self.head)}
        told |= head_facts(self.head_precision)
        return told if self.masks else {**told, "layers": LAYERS}


def paper_mask_rcnn() -> DetectionProbe:
    """Table 8's Mask R-CNN; size, augmentation and decay are the authors' library's."""
    return DetectionProbe(
        recipe="paper",
        head=MaskRcnnForm(),
        schedule=Schedule(
            kind="multi-step",
            lr=3e-4,
            warmup_steps=250,
            warmup_init_lr=1e-5,
            milestones=(22, 24),
            gamma=0.1,
        ),
        epochs=25,
        size=1024,
        train_sizes=tuple(range(512, 1281, 32)),
        batch_size=4,
        augment="flip",
        weight_decay=0.1,
        decay_biases=False,
    )


def paper_ssd() -> DetectionProbe:
    """Table 8's SSD; size, augmentation and decay are the authors' library's."""
    return DetectionProbe(
        recipe="paper",
        head=SsdForm(),
        schedule=Schedule(lr=9e-4, warmup_steps=500, warmup_init_lr=9e-5, min_lr=1e-6),
        epochs=200,
        size=320,
        batch_size=32,
        augment="ssd",
        weight_decay=0.01,
        decay_biases=True,
    )


def small_mask_rcnn() -> DetectionProbe:
    """For the playroom on two cores: 64 channels, 64 boxes per picture in the loss.

    Four pictures a step, as in Table 8: after one epoch box AP was 1.7, with eight a step 0.3.
    Chosen like `small_ssd`.
    """
    return DetectionProbe(
        recipe="small",
        head=MaskRcnnForm(
            width=64,
            hidden=128,
            depth=1,
            proposal_depth=1,
            anchor_scale=4,
            proposal_samples=64,
            train_proposals=(500, 250),
            test_proposals=(250, 100),
            rois=64,
            detections=30,
        ),
        schedule=Schedule(
            kind="multi-step",
            lr=1.5e-3,
            warmup_steps=50,
            warmup_init_lr=1e-4,
            milestones=(3,),
            gamma=0.1,
        ),
        epochs=4,
        size=128,
        batch_size=4,
        augment="flip",
        weight_decay=0.05,
        decay_biases=False,
    )


def small_ssd() -> DetectionProbe:
    """For the playroom on two cores: four levels of 64 channels, priors from a fifth of the side.

    Things there are a quarter of the picture wide; priors from a tenth found a third less. Priors,
    rate and length were chosen on `home`'s validation split with the CLIP that ships with the
    package: box AP was 6.0, 6.4, 6.9 and 7.0 at rates of 5e-3, 1.5e-2, 3e-2 and 6e-2.
    """
    return DetectionProbe(
        recipe="small",
        head=SsdForm(
            strides=(16, 32, 64, -1),
            widths=(64, 64, 64, 64),
            ratios=((2, 3), (2, 3), (2, 3), (2,)),
            sides=(0.2, 1.05),
            detections=50,
        ),
        schedule=Schedule(lr=3e-2, warmup_steps=50, warmup_init_lr=1e-4, min_lr=1e-5),
        epochs=16,
        size=128,
        batch_size=16,
        augment="flip",
        weight_decay=0.01,
        decay_biases=False,
    )
