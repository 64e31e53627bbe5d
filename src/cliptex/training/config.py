"""All that decides a training run, in one frozen value that reads from and writes to YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cliptex.files import write_atomic
from cliptex.models.clip import ModelSpec
from cliptex.models.cliptex import DenseConfig

# What may differ when a run is continued: none of it touches a weight.
OPERATIONAL = frozenset(
    {"workers", "cache_bytes", "checkpoint_every", "keep_checkpoints", "log_every", "tensorboard"}
)


class TrainConfig(BaseModel):
    """One training run. Defaults are Table 7 of the paper where it has a value.

    model: what to build, or a saved model to go on from (its name: a folder, or "playroom").
    data: folder of image-text tars (or one tar). labels: folder of label stores.
    tasks: task name -> folder of its expert below `labels`; none is CLIP-FT.
    loss_weights: λ of loss (1), for "clip" and for every task.
    steps, epochs: exactly one of them says how long.
    resolution: (height, width) pixels of the images; more than one alternate (variable
        resolution), the first is the base at which `batch_size` holds.
    head_lr_multiplier: learning rate of pyramid and heads over that of CLIP (paper: 1).
    crop_scale, crop_ratio, flip: see cliptex.data.transforms.Augmentation.
    workers: threads that prepare batches; cache_bytes: decoded data kept in memory.
    bad_steps: stop after so many steps in a row whose loss is not finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    data: Path
    labels: Path | None = None
    tasks: dict[str, str] = Field(default_factory=dict)
    loss_weights: dict[str, float] = Field(
        default_factory=lambda: {"clip": 1.0, "segmentation": 0.1, "depth": 1.0, "normals": 1.0}
    )
    dense: DenseConfig = DenseConfig()

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    resolution: tuple[tuple[int, int], ...] = ((512, 512),)

    lr: float = Field(default=3e-5, gt=0)
    min_lr: float = Field(default=1e-6, ge=0)
    warmup_init_lr: float = Field(default=1e-6, ge=0)
    warmup_steps: int = Field(default=1000, ge=0)
    head_lr_multiplier: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.2, ge=0)  # the authors' library for CLIP
    betas: tuple[float, float] = (0.9, 0.98)  # as above
    eps: float = Field(default=1e-6, gt=0)  # as above
    clip_grad: float | None = Field(default=None, gt=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = Field(default=0, ge=0)

    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(default=0.0, ge=0, le=1)

    workers: int = Field(default=1, ge=0)
    cache_bytes: int = Field(default=2 << 30, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=1, ge=1)
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = True
    bad_steps: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of steps and epochs")
        if self.tasks and self.labels is None:
            raise ValueError(f"labels: name the folder with the labels of {sorted(self.tasks)}")
        if missing := {"clip", *self.tasks} - self.loss_weights.keys():
            raise ValueError(f"loss_weights: no weight for {sorted(missing)}")
        if bad := [name for name, w in self.loss_weights.items() if not 0 <= w < math.inf]:
            raise ValueError(f"loss_weights: {bad} must be finite and not negative")
        if not self.resolution:
            raise ValueError("resolution: name at least one (height, width)")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale: need 0 < low <= high <= 1, not {self.crop_scale}")
        return self


def dump_config(config: TrainConfig, path: Path) -> None:
    """Write every value, defaults included, as YAML."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(path, text.encode())


def load_config(path: Path) -> TrainConfig:
    """Read what `dump_config` wrote; keys left out get their defaults, unknown ones are refused."""
    try:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a training configuration: {error}") from error


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Names of the keys in which two configurations lead to different weights."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [key for key in before if key not in OPERATIONAL and before[key] != after[key]]


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return config.model_dump(mode="json")
