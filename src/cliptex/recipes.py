"""The runs of the paper and of this project, as functions that return configurations.

A recipe names only what differs from the defaults of TrainConfig, so that reading it says what
is special about the run. docs/recipes.md tells where each value comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cliptex.models.cliptex import DenseConfig
from cliptex.models.spec import ClipConfig, ModelSpec
from cliptex.training.config import TrainConfig

VIT_B16 = ModelSpec(name="open_clip:ViT-B-16", weights="laion2b_s34b_b88k")

# The authors' CLIP was trained at 160 to 320 pixels around a base of 224, in steps that 32
# divides. The range around 512 is not published; this is theirs in proportion.
AROUND_512 = tuple((side, side) for side in (512, 352, 448, 544, 640, 736))

TASK_NAMES = ("segmentation", "depth", "normals")
PLAYROOM_EXPERTS: Mapping[str, str] = {task: f"playroom-{task}" for task in TASK_NAMES}
# Chosen on the validation split of `home`; docs/decisions.md tells against what.
PLAYROOM_WEIGHTS = {"clip": 1.0, "segmentation": 10.0, "depth": 10.0, "normals": 10.0}


def clip_ft_vit_b16(data: Path, **changes: Any) -> TrainConfig:
    """The paper's CLIP-FT: Table 7 without tasks."""
    return _with(TrainConfig(model=VIT_B16, data=data, epochs=30, resolution=AROUND_512), **changes)


def cliptex_vit_b16(
    data: Path, labels: Path, *, tasks: Mapping[str, str], **changes: Any
) -> TrainConfig:
    """The paper's CLIPTeX: CLIP-FT's recipe and order of samples, with `tasks` (Table 7).

    tasks: task -> folder of the expert's labels below `labels`.
    """
    return clip_ft_vit_b16(data, labels=labels, tasks=dict(tasks), **changes)


def playroom_pretrain(
    data: Path, *, vocabulary: Sequence[int] | None = None, seed: int = 0, **changes: Any
) -> TrainConfig:
    """The shipped CLIP of the playroom: from nothing, on web images at 64 pixels."""
    config = ClipConfig(
        embed_dim=128,
        vision_cfg={"image_size": 64, "layers": 6, "width": 192, "patch_size": 16},
        text_cfg={"context_length": 32, "width": 128, "heads": 2, "layers": 4},
        conv_stem=True,
        vocabulary=None if vocabulary is None else tuple(vocabulary),
    )
    base = TrainConfig(
        model=ModelSpec(config=config, seed=seed),
        data=data,
        seed=seed,
        steps=1500,
        batch_size=256,
        resolution=((64, 64),),
        lr=1e-3,
        min_lr=1e-5,
        warmup_steps=150,
        weight_decay=0.1,
        clip_grad=1.0,
        crop_scale=(0.6, 1.0),
    )
    return _with(base, **changes)


def playroom(
    data: Path,
    labels: Path | None = None,
    *,
    tasks: Mapping[str, str] | None = None,
    **changes: Any,
) -> TrainConfig:
    """CLIPTeX in the playroom at 128 pixels, from the shipped CLIP; without labels, CLIP-FT.

    tasks: by default all three, with the labels of the playroom's experts.
    """
    if tasks is None:
        tasks = {} if labels is None else PLAYROOM_EXPERTS
    if tasks:  # Table 7's weights leave this small encoder to the contrastive gradient alone
        changes = {"loss_weights": PLAYROOM_WEIGHTS, **changes}
    base = TrainConfig(
        model=ModelSpec(name="playroom"),
        data=data,
        labels=labels,
        tasks=dict(tasks),
        dense=DenseConfig(width=256),
        steps=400,
        batch_size=48,
        resolution=((128, 128),),
        lr=3e-4,
        warmup_steps=50,
    )
    return _with(base, **changes)


def photos(
    data: Path,
    image_weights: Path,
    labels: Path | None = None,
    *,
    tasks: Mapping[str, str] | None = None,
    vocabulary: Sequence[int] | None = None,
    seed: int = 0,
    **changes: Any,
) -> TrainConfig:
    """Real photographs: an ImageNet EfficientNet-Lite0 tower and a small text tower from nothing.

    image_weights: safetensors of timm's tf_efficientnet_lite0.
    tasks: task -> folder of the expert's labels below `labels`; none is CLIP-FT.
    vocabulary: byte-pair ids of the captions' words; without it the text tower has all 49,408.
    """
    config = ClipConfig(
        embed_dim=256,
        vision_cfg={
            "timm_model_name": "tf_efficientnet_lite0",
            "image_size": 224,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        text_cfg={"context_length": 32, "width": 256, "heads": 4, "layers": 3},
        vocabulary=None if vocabulary is None else tuple(vocabulary),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    base = TrainConfig(
        model=ModelSpec(config=config, image_weights=image_weights, seed=seed),
        data=data,
        seed=seed,
        labels=labels,
        tasks=dict(tasks or {}),
        dense=DenseConfig(width=256),
        epochs=8,
        resolution=((224, 224),),
        lr=3e-4,
        warmup_steps=50,
        precision="fp32",  # depth-wise convolutions take 1.7 times as long in bfloat16 on a CPU
    )
    return _with(base, **changes)


def _with(config: TrainConfig, **changes: Any) -> TrainConfig:
    """`config` with some keys changed and everything validated again."""
    if "steps" in changes:
        changes.setdefault("epochs", None)
    elif "epochs" in changes:
        changes.setdefault("steps", None)
    return TrainConfig.model_validate({**dict(config), **changes})
