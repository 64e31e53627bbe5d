"""Small named recipes for dense and classification probes: the playroom on two cores.

Every head of the paper at 128 pixels, in minutes instead of hours; `detection.config` has the small
Mask R-CNN and SSD. Rate and length were set by hand, after two trials on `home`'s validation split
with the CLIP that ships with the package (segmentation for 3 epochs, depth for 8); they were not
searched.
"""

from __future__ import annotations

from typing import Any

from cliptex.models.config import HEAD_NAMES, HeadName
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.schedule import Schedule
from cliptex.probes.table8 import Task

SIDE = 128


def small_probes(task: Task, heads: tuple[HeadName, ...] = HEAD_NAMES) -> BankConfig:
    """`heads` of one task side by side; classification has the linear probe only."""
    shared: dict[str, Any] = {
        "recipe": "small",
        "schedule": Schedule(lr=2e-3, warmup_steps=50, warmup_init_lr=2e-5, min_lr=2e-5),
        "batch_size": 16,
        "epochs": 6,
        "resolution": SIDE,
        "width": 128,
        "weight_decay": 0.05,
        "precision": "bf16",
        "extract_batch": 32,
    }
    if task == "classification":
        return BankConfig(heads=("linear",), **{**shared, "epochs": 20})
    return BankConfig(heads=heads, **shared)
