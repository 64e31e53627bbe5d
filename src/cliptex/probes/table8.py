"""Table 8 of the paper: its dense and classification columns as configurations.

Its two columns of detection are `detection.config.paper_mask_rcnn` and `paper_ssd`. The heads of a
task share one column's values, so they train as one bank. What the table leaves open follows the
authors' library's segmentation with a ViT, and is listed in docs/decisions.md.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from cliptex.data.transforms import Augmentation
from cliptex.models.config import HEAD_NAMES, HeadName
from cliptex.probes.augment import CropAugmentation
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.schedule import Schedule

Task = Literal["segmentation", "depth", "normals", "classification"]
TASKS: tuple[Task, ...] = get_args(Task)


def paper_probes(task: Task, heads: tuple[HeadName, ...] = HEAD_NAMES) -> BankConfig:
    """Table 8 for `heads` of one task; classification has the linear probe only."""
    if task == "segmentation":
        return paper_segmentation(heads)
    if task == "depth":
        return paper_depth(heads)
    return paper_normals(heads) if task == "normals" else paper_classification()


def paper_segmentation(heads: tuple[HeadName, ...] = HEAD_NAMES) -> BankConfig:
    """Linear, DeepLabv3 and PSPNet on PASCAL VOC and ADE20K; augmentation as in their library."""
    return _paper(
        heads,
        Schedule(lr=3e-5, warmup_steps=500, warmup_init_lr=1e-6, min_lr=3e-6),
        batch_size=32,
        augmentation=CropAugmentation(),
    )


def paper_depth(heads: tuple[HeadName, ...] = HEAD_NAMES) -> BankConfig:
    """Linear, DeepLabv3 and PSPNet on NYU depth, with gentle rescaling (see `INDOOR`)."""
    return _paper(
        heads,
        Schedule(lr=1e-4, warmup_steps=1000, warmup_init_lr=1e-6, min_lr=1e-6),
        batch_size=16,
        augmentation=INDOOR,
    )


def paper_normals(heads: tuple[HeadName, ...] = HEAD_NAMES) -> BankConfig:
    """Linear, DeepLabv3 and PSPNet on NYU normals."""
    return _paper(
        heads,
        Schedule(lr=1e-5, warmup_steps=1000, warmup_init_lr=1e-6, min_lr=1e-6),
        batch_size=16,
        augmentation=INDOOR,
    )


def paper_classification() -> BankConfig:
    """Linear on ImageNet and Places365; random resized crops and flips at 224 pixels."""
    return _paper(
        ("linear",),
        Schedule(lr=3e-5, warmup_steps=1000, warmup_init_lr=1e-6, min_lr=1e-6),
        epochs=40,
        batch_size=128,
        resolution=224,
        weight_decay=0.05,
        augmentation=Augmentation(scale=(0.08, 1.0), flip=0.5),
    )


# All pictures of NYU are of one camera and size, and are squashed whole in evaluation: rescaling
# as strong as on web photographs would only show sizes that never come. One class per crop is no
# matter here.
INDOOR = CropAugmentation(short_side=(512, 640), class_share=None)


def _paper(heads: tuple[HeadName, ...], schedule: Schedule, **values: Any) -> BankConfig:
    shared: dict[str, Any] = {"epochs": 50, "resolution": 512, "weight_decay": 0.1}
    shared |= {"recipe": "paper", "align_corners": True}
    return BankConfig(heads=heads, schedule=schedule, **{**shared, **values})
