"""All that decides a training run, in one frozen value that reads from and writes to YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cliptex.console import did_you_mean, not_among
from cliptex.data.sampler import WINDOW
from cliptex.files import write_atomic
from cliptex.labels.kinds import Normalisation
from cliptex.models.config import DenseConfig, ModelSpec
from cliptex.tasks import TASKS

# What may differ when a run is continued: none of it touches a weight.
OPERATIONAL = frozenset(
    {
        *("workers", "cache_bytes", "checkpoint_every", "keep_checkpoints", "keep_best"),
        *("log_every", "tensorboard", "peak_tflops"),
        *("parallel", "accumulate", "activation_checkpointing", "compile"),  # rounding apart
    }
)

CONFIG = "config.yaml"  # in the folder of a run
LOSS_WEIGHTS = {"clip": 1.0, "segmentation": 0.1, "depth": 1.0, "normals": 1.0}  # Table 7
RANGE_AUGMENT = "range_augment"
LENGTHS = ("steps", "epochs", "samples")  # ways to say how long a run is


class TrainConfig(BaseModel):
    """One training run. Defaults are Table 7 of the paper where it has a value.

    Args:
        model: what to build, or a saved model to go on from (its name: a folder, or "playroom").
        data: folder of image-text tars, or one tar.
        caption_key: field of every KEY.json that holds the captions; by default KEY.txt does.
        labels: folder of label stores.
        tasks: task and folder of its expert below `labels`, for each task; none is CLIP-FT.
        loss_weights: weight λ of each term of loss (1): "clip", every task of the run (by default
            Table 7's), and "range_augment" where it is used (by default 1).
        uncertainty: learn a log-variance per task that divides its loss.
        confidence: tasks whose loss weighs every pixel by the confidence stored with its label.
        depth_norm: how depth, and any other scalar field, is normalised.
        contrast: CLIP's softmax over a batch, or SigLIP's sigmoid of every pair.
        sigmoid_bias: first bias of the sigmoid where the model has none.
        dense: pyramid and heads.
        steps: length of the run in steps of the optimizer; or `epochs`, or `samples`.
        epochs: length of the run in passes over the data, rounded up to a whole step.
        samples: length of the run in images seen, rounded up to a whole step.
        batch_size: samples of a step at the first resolution.
        batch_per: whether `batch_size` counts the samples of all ranks together, or of each; the
            run's own config.yaml always says the former.
        resolution: height and width of the images in pixels; several alternate, and the first is
            the one at which `batch_size` holds.
        lr: highest learning rate of the towers.
        min_lr: learning rate at the end of the cosine.
        warmup_init_lr: learning rate of the first step.
        warmup_steps: steps of linear warm-up.
        head_lr_multiplier: learning rate of pyramid and heads over that of CLIP (paper: 1).
        weight_decay: of AdamW, on weights of more than one dimension.
        betas: of AdamW.
        eps: of AdamW.
        clip_grad: largest norm of all gradients together; by default not limited.
        precision: number format of the forward and backward pass; weights are float32.
        ema: share that a moving average of the weights takes of each step's (the authors' library
            for CLIP: 5e-4); the average is saved beside the final weights.
        accumulate: parts in which a rank computes its share of a batch, for less memory; the
            contrastive loss still compares all samples of the global batch.
        parallel: how several ranks share the work; one rank does without.
        activation_checkpointing: recompute the towers' blocks on the way back, for less memory.
        compile: use torch.compile for the towers' blocks.
        seed: of the order of samples, crops and new weights.
        shuffle_window: samples that are shuffled together.
        crop_scale: smallest and largest share of the image's area that a crop takes.
        crop_ratio: smallest and largest width over height of a crop.
        flip: probability of a mirrored image.
        range_augment: learn ranges of brightness, contrast and noise that bring the images' PSNR
            from the first to the second value (dB; the authors' library for CLIP: 40 20).
        workers: threads that prepare batches.
        cache_bytes: bytes of decoded data kept in memory.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: checkpoints that are kept; the one before is used where the last is
            damaged.
        keep_best: keep also the checkpoint with the lowest running mean of the training loss.
        log_every: steps between lines of the log.
        tensorboard: write events for TensorBoard, too.
        peak_tflops: of one device at this precision, for the log's `mfu`; measured if not given.
        bad_steps: stop after so many steps in a row whose loss is not finite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    data: Path
    caption_key: str | None = None
    labels: Path | None = None
    tasks: dict[str, str] = Field(default_factory=dict)
    loss_weights: dict[str, float] = Field(default_factory=lambda: dict(LOSS_WEIGHTS))
    uncertainty: bool = False
    confidence: tuple[str, ...] = ()
    depth_norm: Normalisation = "median-mad"
    contrast: Literal["softmax", "sigmoid"] = "softmax"
    sigmoid_bias: float = -10.0  # Zhai et al. 2023, section 3.2
    dense: DenseConfig = DenseConfig()

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    samples: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    batch_per: Literal["global", "rank"] = "global"
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
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    ema: float | None = Field(default=None, gt=0, lt=1)
    accumulate: int = Field(default=1, ge=1)
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    activation_checkpointing: bool = False
    compile: bool = False
    seed: int = Field(default=0, ge=0)

    shuffle_window: int = Field(default=WINDOW, ge=1)
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(default=0.0, ge=0, le=1)
    range_augment: tuple[float, float] | None = None

    workers: int = Field(default=1, ge=0)
    cache_bytes: int = Field(default=2 << 30, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_best: bool = False
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = True
    peak_tflops: float | None = Field(default=None, gt=0)
    bad_steps: int = Field(default=10, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _weigh_own_terms(cls, values: Any) -> Any:
        """Leave out the weights of terms that the run does not have: configurations had them."""
        weights = values.get("loss_weights", LOSS_WEIGHTS) if isinstance(values, dict) else None
        if not isinstance(weights, Mapping):
            return values
        own = {"clip", *(values.get("tasks") or ())}
        if values.get(RANGE_AUGMENT) is not None:
            own.add(RANGE_AUGMENT)
            weights = {RANGE_AUGMENT: 1.0, **weights}
        kept = {name: w for name, w in weights.items() if name in own or name not in _terms()}
        return {**values, "loss_weights": kept}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(getattr(self, name) is not None for name in LENGTHS) != 1:
            raise ValueError(f"set exactly one of {', '.join(f'`{name}`' for name in LENGTHS)}")
        if self.tasks and self.labels is None:
            raise ValueError(f"`labels`: give the folder with the labels of {sorted(self.tasks)}")
        if unknown := sorted(self.tasks.keys() - TASKS.keys()):
            raise ValueError(f"`tasks`: {not_among(unknown[0], TASKS)}")
        if unknown := sorted(self.loss_weights.keys() - _terms()):
            raise ValueError(f"`loss_weights`: {not_among(unknown[0], _terms())}")
        if missing := {"clip", *self.tasks} - self.loss_weights.keys():
            raise ValueError(f"`loss_weights`: give a weight for {sorted(missing)}")
        if bad := [name for name, w in self.loss_weights.items() if not 0 <= w < math.inf]:
            raise ValueError(f"`loss_weights`: {bad} must be finite and not negative")
        if unknown := sorted(set(self.confidence) - set(self.tasks)):
            raise ValueError(
                f"`confidence`: {unknown} are not in `tasks`, which has {sorted(self.tasks)}"
            )
        if self.uncertainty and not self.tasks:
            raise ValueError("`uncertainty` weighs the losses of tasks, but `tasks` is empty")
        if not self.resolution:
            raise ValueError("`resolution`: give at least one (height, width)")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"`crop_scale`: {self.crop_scale}; it must be 0 < low <= high <= 1")
        return self


def _terms() -> set[str]:
    """All terms that loss (1) can have."""
    return {"clip", RANGE_AUGMENT, *TASKS}


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with some keys changed, validated again.

    One length given takes the others back; tasks that are added have Table 7's weights.
    """
    given = [name for name in LENGTHS if changes.get(name) is not None]
    values = {**dict(config), **{name: None for name in LENGTHS if given and name not in given}}
    values["loss_weights"] = {**LOSS_WEIGHTS, **config.loss_weights}
    return TrainConfig.model_validate({**values, **changes})


def of_all_ranks(config: TrainConfig, ranks: int) -> TrainConfig:
    """`config` with a `batch_size` that counts the samples of all `ranks` together."""
    if config.batch_per == "global":
        return config
    return changed(config, {"batch_size": config.batch_size * ranks, "batch_per": "global"})


def dump_config(config: TrainConfig, path: Path) -> None:
    """Write every value, defaults included, as YAML."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(path, text.encode())


def load_config(path: Path) -> TrainConfig:
    """Read what `dump_config` wrote; keys left out get their defaults, unknown ones are refused."""
    try:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        meant = did_you_mean(str(path), map(str, path.parent.glob("*.y*ml")))
        raise FileNotFoundError(f"{path}: no such file{meant}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: not a training configuration: {_said(error)}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a training configuration: {error}") from error


def _said(error: ValidationError) -> str:
    """Each key that does not fit, and what is wrong with it."""
    parts = [
        (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))
        for one in error.errors(include_url=False)
    ]
    return "; ".join(f"{where}: {message}" if where else message for where, message in parts)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Names of the keys in which two configurations lead to different weights."""
    before, after = (config.model_dump(mode="json") for config in (old, new))
    # A term that one of them lacks shows in its own key.
    common = old.loss_weights.keys() & new.loss_weights.keys()
    for config, values in ((old, before), (new, after)):
        values["loss_weights"] = {term: config.loss_weights[term] for term in common}
    return [key for key in before if key not in OPERATIONAL and before[key] != after[key]]


def as_json(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return config.model_dump(mode="json")
