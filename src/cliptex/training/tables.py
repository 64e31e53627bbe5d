"""The paper's Tables 5 to 7 where they are more than a default: rows of tasks, heads, rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

BATCH_SIZE = 32  # Table 7
Row = Literal["R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8"]
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
LrRule = Literal["none", "sqrt", "linear"]


def tasks_of(row: Row, tasks: Mapping[str, str]) -> dict[str, str]:
    """Those of `tasks` (task -> expert) that a row of Table 5 learns from.

    Raises ValueError naming those that are missing.
    """
    if missing := [task for task in TABLE_5[row] if task not in tasks]:
        raise ValueError(f"tasks: row {row} of Table 5 needs the labels of an expert for {missing}")
    return {task: tasks[task] for task in TABLE_5[row]}


def learning_rates(batch_size: int, rule: LrRule) -> dict[str, Any]:
    """Table 7's learning rates for a batch of `batch_size`, by their keys in the configuration."""
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[rule]
    factor = (batch_size / BATCH_SIZE) ** power
    table = {"warmup_init_lr": 1e-6, "lr": 3e-5, "min_lr": 1e-6}
    return {name: rate * factor for name, rate in table.items()}
