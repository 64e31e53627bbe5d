"""Everything a linear probe's number depends on; it is written into every result row."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptex.models.config import HeadPrecision, Precision
from cliptex.probes.protocol import Protocol, head_facts


class ProbeConfig(BaseModel):
    """How a linear probe is trained, selected and evaluated.

    resolution: side in pixels of the square to which every whole picture is resized (squashed),
        in training and evaluation. The encoder sees the nearest multiple of its stride.
    epochs, batch_size, weight_decay, warmup, min_factor: AdamW with a linear warm-up over the
        share `warmup` of all steps and a cosine down to `min_factor` times the rate. Table 8 has
        50 epochs (40 for classification); features are cached and standardised here, so that a
        linear head converges in far fewer.
    min_steps: small sets are gone through more often, until there are so many steps.
    learning_rates: the grid, for standardised features. All rates are trained side by side on the
        same batches and chosen per model: one fixed small rate would measure the scale of
        features, not their content.
    holdout: share of train on which the rate is chosen where no validation split is given.
    refit: whether the chosen rate is then trained on the whole of train.
    standardise: whether channels get mean 0 and variance 1 / C over train (vectors of about unit
        norm, so that one grid of rates fits narrow and wide encoders). A fixed linear map, folded
        into the head afterwards, so that the head still is one point-wise convolution.
    pixels: side of the grid of label pixels drawn per picture and step. Rows and columns are
        drawn at random within strata, and logits are interpolated to exactly these pixels; the
        expected loss is that over all pixels (see `probes.fit`).
    depth_range: metres; depth outside is ignored in training.
    protocols: rules by which the same predictions are scored, one set of rows each; the first one
        chooses the rate. Empty: `LASINGER` for depth, the whole picture for other kinds.
    things: class names averaged in `miou_things`; None takes all classes but `background` where
        there is one, and gives no such row where there is none.
    precision: of the encoder. head_precision: of heads' products; losses and metrics are float32.
    feature_dtype: how features are cached; float16 keeps 11 bits.
    memory_budget: bytes of cached features and labels in memory; what exceeds it goes to memory-
        mapped files in `scratch` (default: the system's temporary folder), of which nothing is left
        at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int = Field(default=512, gt=0)
    epochs: int = Field(default=12, gt=0)
    min_steps: int = Field(default=200, ge=0)
    batch_size: int = Field(default=32, gt=0)
    learning_rates: tuple[float, ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=1
    )
    weight_decay: float = 0.01
    warmup: float = Field(default=0.05, ge=0, lt=1)
    min_factor: float = Field(default=0.01, ge=0, le=1)
    holdout: float = Field(default=0.2, gt=0, lt=1)
    refit: bool = True
    standardise: bool = True
    pixels: int = Field(default=8, gt=0)
    depth_range: tuple[float, float] = (0.0, 10.0)
    protocols: tuple[Protocol, ...] = ()
    things: tuple[str, ...] | None = None
    seed: int = 0
    precision: Precision = "fp32"
    head_precision: HeadPrecision = "fp32"
    extract_batch: int = Field(default=64, gt=0)
    feature_dtype: Literal["float16", "float32"] = "float16"
    memory_budget: int = 4 << 30
    scratch: Path | None = None

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if not all(0 < rate < float("inf") for rate in self.learning_rates):
            raise ValueError(f"learning_rates: {self.learning_rates} must be positive")
        return self

    def protocol(self) -> dict[str, object]:
        """What belongs into a row of every task, JSON-able."""
        keys = (
            "resolution",
            "epochs",
            "min_steps",
            "batch_size",
            "weight_decay",
            "warmup",
            "min_factor",
        )
        keys += ("refit", "standardise", "precision")
        told = {key: getattr(self, key) for key in keys}
        return {"recipe": "fast", **told, **head_facts(self.head_precision)}
