"""The runs of the paper and of this project, as functions that return configurations.

A recipe names only what differs from the defaults of TrainConfig, so that reading it says what
is special about the run. docs/recipes.md tells where each value comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cliptex.console import not_among
from cliptex.data.sampler import Around
from cliptex.models.config import ClipConfig, DenseConfig, ModelSpec, OutputStride
from cliptex.training.config import LOSS_WEIGHTS, TrainConfig, changed

Tower = Literal["vit-b16", "resnet50", "vit-h16"]
Row = Literal["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"]
LrRule = Literal["none", "sqrt", "linear"]

# The three image towers of section 4.2. What the paper's CLIPs start from is the authors' own;
# "corenet:FILE" reads their ViTs. These are open weights of the same towers, None where there are
# none.
TOWERS: Mapping[Tower, str | None] = {
    "vit-b16": "open_clip:ViT-B-16/laion2b_s34b_b88k",
    "resnet50": "open_clip:RN50/openai",
    "vit-h16": None,
}
TABLE_5: Mapping[Row, tuple[str, ...]] = {
    "R1": (),
    "R2": ("segmentation",),
    "R3": ("depth",),
    "R4": ("normals",),
    "R5": ("segmentation", "depth"),
    "R6": ("segmentation", "normals"),
    "R7": ("depth", "normals"),
    "R8": ("segmentation", "depth", "normals"),
}
HEADS: Mapping[int, Literal["light", "heavy"]] = {1: "light", 3: "heavy"}  # Table 6: layers
BATCH_SIZE = 32  # Table 7

# The authors' CLIP was trained at 160 to 320 pixels in five sizes around a base of 224. The range
# around 512 is not published; this is theirs in proportion (512 * 160 / 224 to 512 * 320 / 224).
AROUND_512 = Around(base=512, low=366, high=731, count=5)

TASK_NAMES = ("segmentation", "depth", "normals")
PLAYROOM_EXPERTS: Mapping[str, str] = {task: f"playroom-{task}" for task in TASK_NAMES}
# Chosen on the validation split of `home`; docs/decisions.md tells against what.
PLAYROOM_WEIGHTS = {"clip": 1.0, "segmentation": 10.0, "depth": 10.0, "normals": 10.0}


def paper(
    tower: Tower,
    data: Path,
    labels: Path | None = None,
    *,
    tasks: Mapping[str, str] | None = None,
    row: Row | None = None,
    head_layers: Literal[1, 3] = 1,
    start_from: str | None = None,
    batch_size: int = BATCH_SIZE,
    lr_rule: LrRule = "none",
    around: Around = AROUND_512,
    output_stride: OutputStride | None = None,
    **changes: Any,
) -> TrainConfig:
    """The paper's fine-tuning with Table 7's values: CLIPTeX with tasks, CLIP-FT without.

    Both see the same samples in the same order.

    Args:
        tower: image tower; the paper gives all three the same settings.
        labels: folder of label stores; needed where there are tasks.
        tasks: task and folder of its expert below `labels`, for each task; none is CLIP-FT.
        row: of Table 5: learn from this subset of `tasks` (R1 is CLIP-FT); by default from all.
        head_layers: layers of each task's head (Table 6).
        start_from: the CLIP to go on from: a folder, open_clip:NAME/TAG, or corenet:FILE for the
            authors' own; by default open weights of the tower, which vit-h16 does not have.
        batch_size: samples of all ranks together; Table 7's 32 may be meant per GPU.
        lr_rule: what a batch other than 32 does to the three learning rates of Table 7: nothing,
            or multiply them by sqrt(batch_size / 32) or by batch_size / 32.
        around: the resolutions.
        output_stride: of resnet50: 16 or 8 dilates the last one or two stages; by default 32, as
            the weights were trained.
    """
    if tower not in TOWERS:
        raise ValueError(f"`tower`: {not_among(tower, TOWERS)}")
    if (start := start_from or TOWERS[tower]) is None:
        raise ValueError(
            f"`start_from`: there are no open weights of {tower}; give corenet:FILE, or "
            "corenet:ViT-H-16 for random weights"
        )
    chosen = dict(tasks or {}) if row is None else tasks_of(row, tasks or {})
    base = TrainConfig(
        model=ModelSpec(name=start, output_stride=output_stride),
        data=data,
        labels=labels if chosen else None,
        tasks=chosen,
        loss_weights={**dict.fromkeys(chosen, 1.0), **LOSS_WEIGHTS},
        dense=DenseConfig(head=HEADS[head_layers]) if chosen else DenseConfig(),
        epochs=30,
        batch_size=batch_size,
        resolution=around.sizes(),
        activation_checkpointing=tower == "vit-h16",  # as the authors' library
        **learning_rates(batch_size, lr_rule),
    )
    return changed(base, changes)


def tasks_of(row: Row, tasks: Mapping[str, str]) -> dict[str, str]:
    """Those of `tasks` (task -> expert) that a row of Table 5 learns from.

    Raises ValueError naming those that are missing.
    """
    if missing := [task for task in TABLE_5[row] if task not in tasks]:
        raise ValueError(
            f"`tasks`: row {row} of Table 5 needs the labels of an expert for {missing}"
        )
    return {task: tasks[task] for task in TABLE_5[row]}


def learning_rates(batch_size: int, rule: LrRule) -> dict[str, Any]:
    """Table 7's learning rates for a batch of `batch_size`, by their keys in the configuration."""
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[rule]
    factor = (batch_size / BATCH_SIZE) ** power
    table = {"warmup_init_lr": 1e-6, "lr": 3e-5, "min_lr": 1e-6}
    return {name: rate * factor for name, rate in table.items()}


def playroom_pretrain(
    data: Path, *, vocabulary: Sequence[int] | None = None, seed: int = 0, **changes: Any
) -> TrainConfig:
    """The shipped CLIP of the playroom: from nothing, on web images at 64 pixels.

    Args:
        vocabulary: byte-pair ids of the captions' words; without it the text tower has all 49,408.
    """
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
    return changed(base, changes)


def playroom(
    data: Path,
    labels: Path | None = None,
    *,
    tasks: Mapping[str, str] | None = None,
    **changes: Any,
) -> TrainConfig:
    """CLIPTeX in the playroom at 128 pixels, from the shipped CLIP; without labels, CLIP-FT.

    Args:
        tasks: task and folder of its expert below `labels`; by default all three, with the labels
            of the playroom's experts.
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
    return changed(base, changes)


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

    Args:
        image_weights: safetensors of timm's tf_efficientnet_lite0.
        tasks: task and folder of its expert below `labels`, for each task; none is CLIP-FT.
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
    return changed(base, changes)


RECIPES: Mapping[str, Callable[..., TrainConfig]] = {
    recipe.__name__: recipe for recipe in (paper, playroom, playroom_pretrain, photos)
}
"""By name, for the command line. Every option of one is documented there, or in TrainConfig."""
