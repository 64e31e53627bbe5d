"""The folder of a run: who may work there, its configuration and its surroundings."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cliptex.console import warn
from cliptex.files import check_can_make, sweep, write_atomic
from cliptex.machine import cores
from cliptex.training.checkpoint import CHECKPOINTS, has_checkpoint
from cliptex.training.config import CONFIG, TrainConfig, differences, dump_config, load_config
from cliptex.training.distributed import World

ENVIRONMENT, LOCK = "environment.json", ".lock"
_PACKAGES = ("cliptex", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


def check_run(config: TrainConfig, out: Path, *, tell: bool = False) -> None:
    """Check that `out` can hold this run, or holds its beginning; nothing is written.

    A folder without a checkpoint may be configured anew, which is said where `tell`. Raises
    ValueError, naming the keys, where it holds a run with another configuration, and OSError where
    it cannot be made.
    """
    check_can_make(out, "the folder of the run (`out`)")
    path = out / CONFIG
    if not path.exists() or not (changed := differences(load_config(path), config)):
        return
    if has_checkpoint(out):
        raise ValueError(
            f"{path}: this folder holds a run with another configuration ({', '.join(changed)} "
            f"differ); choose another folder, or remove this one to start again"
        )
    if tell:
        warn(f"{path}: no step was saved, so it is configured anew ({', '.join(changed)} differ)")


@contextmanager
def hold_run(out: Path, world: World) -> Iterator[None]:
    """Make `out` and let no other training in while the block runs; all ranks together.

    The system frees the lock however its holder dies. Half-written files of killed runs are swept.
    Raises ValueError where another training holds the folder.
    """
    lock = FileLock(out / LOCK, timeout=0, thread_local=False) if world.main else None
    problem: Exception | None = None
    if lock is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            problem = ValueError(
                f"{out}: another training is at work in this folder; wait for it, stop it, or "
                f"choose another folder"
            )
        except OSError as error:
            problem = error
    if any(failed for (failed,) in world.gather([problem is not None])):
        raise problem or ValueError(f"{out}: rank 0 cannot work in this folder")
    try:
        if world.main:
            for folder in (out, out / CHECKPOINTS):
                sweep(folder)
        yield
    finally:
        if lock is not None:
            (out / LOCK).unlink(missing_ok=True)  # before it is free: nobody may lock a lost file
            lock.release()


def record_run(config: TrainConfig, out: Path, world: World) -> None:
    """Write the configuration and its surroundings; all ranks together."""
    if world.main:
        dump_config(config, out / CONFIG)
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
