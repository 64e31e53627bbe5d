"""Tasks that CLIPTeX can learn beside the contrastive one, one file each."""

from __future__ import annotations

from cliptex.tasks.depth import DEPTH
from cliptex.tasks.edges import EDGES
from cliptex.tasks.normals import NORMALS
from cliptex.tasks.segmentation import SEGMENTATION
from cliptex.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (SEGMENTATION, DEPTH, NORMALS, EDGES)}

__all__ = ["TASKS", "Task"]
