"""Everything that the numbers of a bank of probes depend on."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptex.data.transforms import Augmentation
from cliptex.models.config import WIDTH, HeadName, HeadPrecision, Norm, Precision
from cliptex.probes.augment import CropAugmentation
from cliptex.probes.protocol import Protocol, head_facts
from cliptex.probes.schedule import Schedule


class BankConfig(BaseModel):
    """Probes that train together on one encoder pass: every head x learning rate x seed.

    recipe: what rows call this configuration; rows of two recipes are never compared.
    heads: kinds of head; classification knows linear only.
    schedule, learning_rates: one schedule; rates other than its own scale all of it. Empty means
        the schedule's rate alone, and then nothing is selected.
    seeds: each starts every head anew and drives its dropout. `data_seed` alone decides the order
        of pictures and their augmentation, which all heads share.
    epochs, batch_size: length; the last batch of an epoch may be smaller.
    weight_decay: of AdamW, for convolutions' weights; biases and norms do not decay.
    resolution: side in pixels of the crops of training, and of the square to which pictures are
        squashed for evaluation (as the authors' library evaluates ViTs). The encoder sees the
        nearest multiple of its stride; labels keep the resolution.
    augmentation: of training; None squashes pictures as in evaluation, which cached features need.
    width, norm, dropout: of DeepLabv3 and PSPNet.
    align_corners: of the interpolation of outputs to labels; True in the authors' library.
    holdout: share of train on which a rate is chosen where there is no validation split.
    refit: whether a rate chosen so is then trained on the whole of train.
    depth_range, protocols, things: as in `ProbeConfig`.
    precision: of the encoder. head_precision: of heads' products; losses and metrics are float32.
    extract_batch: pictures per encoder pass in evaluation. workers: threads that read pictures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = ""
    heads: tuple[HeadName, ...] = Field(default=("linear",), min_length=1)
    schedule: Schedule
    learning_rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    data_seed: int = 0
    epochs: int = Field(default=50, gt=0)
    batch_size: int = Field(default=32, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    resolution: int = Field(default=512, gt=0)
    augmentation: CropAugmentation | Augmentation | None = None
    width: int = Field(default=WIDTH, gt=0)
    norm: Norm = "group"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    align_corners: bool = False
    holdout: float = Field(default=0.2, gt=0, lt=1)
    refit: bool = True
    depth_range: tuple[float, float] = (0.0, 10.0)
    protocols: tuple[Protocol, ...] = ()
    things: tuple[str, ...] | None = None
    precision: Precision = "fp32"
    head_precision: HeadPrecision = "fp32"
    extract_batch: int = Field(default=16, gt=0)
    workers: int = Field(default=2, gt=0)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in ("heads", "learning_rates", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {values} repeat themselves")
        if not all(0 < rate < float("inf") for rate in self.learning_rates):
            raise ValueError(f"learning_rates: {self.learning_rates} must be positive")
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid of learning rates."""
        return self.learning_rates or (self.schedule.lr,)

    def protocol(self) -> dict[str, object]:
        """What belongs into every row, JSON-able; not what differs from row to row."""
        names = {
            *("recipe", "schedule", "epochs", "batch_size", "weight_decay", "betas", "resolution"),
            *("augmentation", "width", "norm", "dropout", "align_corners", "refit", "data_seed"),
            "precision",
        }
        told = self.model_dump(mode="json", include=names)
        return {**told, **head_facts(self.head_precision)}
