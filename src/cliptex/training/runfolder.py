"""The folder of a run: its configuration, its surroundings, its log."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cliptex.files import write_atomic
from cliptex.machine import cores
from cliptex.training.config import TrainConfig, differences, dump_config, load_config
from cliptex.training.distributed import World

CONFIG, ENVIRONMENT, LOG = "config.yaml", "environment.json", "log.jsonl"
_PACKAGES = ("cliptex", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


def open_run(config: TrainConfig, out: Path, world: World) -> None:
    """Create `out`, or check that the run in it has the same configuration; all ranks together.

    Raises ValueError, naming the keys, where it has another one.
    """
    path = out / CONFIG
    if path.exists() and (changed := differences(load_config(path), config)):
        raise ValueError(
            f"{path}: this folder holds a run with another configuration ({', '.join(changed)} "
            f"differ); choose another folder, or remove this one to start again"
        )
    world.wait()
    if world.main:
        dump_config(config, path)
        environment = {**describe_environment(), "ranks": world.size}
        write_atomic(out / ENVIRONMENT, (json.dumps(environment, indent=2) + "\n").encode())
    world.wait()


def describe_environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpus": cores(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class RunLog:
    """log.jsonl and, if asked for, TensorBoard events; lines after `start` steps are dropped.

    A killed run may have logged steps beyond its last checkpoint; those are done again.
    """

    def __init__(self, out: Path, start: int, *, tensorboard: bool) -> None:
        self._path = out / LOG
        self._cut(start)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # a second to import

            self._events = SummaryWriter(str(out), purge_step=start + 1 if start else None)

    def _cut(self, start: int) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= start]
        write_atomic(self._path, "".join(f"{line}\n" for line in kept).encode())

    def write(self, row: Mapping[str, float]) -> None:
        """Append one line; `row` has a "step"."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:  # the last line of a killed run may be half written
        return float("inf")
