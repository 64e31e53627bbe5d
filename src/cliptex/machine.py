"""What this machine and this installation offer: optional packages, cores, memory, open files.

Systems differ: macOS knows no CPU affinity and no /proc, Windows no `resource`. Only this module
asks, so that the others run wherever an answer can be had.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")  # only Linux has it
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of mallopt's parameters in glibc's malloc.h


class MissingPackage(ModuleNotFoundError):
    """An optional package is not installed or does not load; the message says what to install."""


def need(module: str, *, extra: str, what: str) -> Any:
    """The optional `module`; every import of a package that an extra of ours brings goes here.

    `extra` is the one of pyproject.toml that brings the package, `what` says in a few words what
    needs it ("ONNX experts"). Raises MissingPackage, a line with the extra to install.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in (package, module)
        why = "" if absent else f", which does not load ({error})"
        raise MissingPackage(
            f"{what} needs the package {package}{why}: pip install 'cliptex[{extra}]'", name=module
        ) from error


def cores() -> int:
    """Processors that this process may use: by its affinity where there is one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """The most bytes that this process has had resident; 0 where the system does not say."""
    if STATUS.exists():  # getrusage would count what the parent had before it started this process
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # macOS alone counts in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step; True where that was possible.

    By default every tensor above 32 MB is mapped anew, zeroed page by page by the kernel, and
    given back at once. On two cores that took half of the time of a ViT-B/16 step at 512 pixels
    (benchmarks/bench_train_step.py). For training on a CPU alone: the process does not shrink.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))


def most_open_files() -> int | None:
    """How many files this process may have open (RLIMIT_NOFILE); None for any number."""
    try:
        import resource
    except ImportError:
        return 512  # what the C library of Windows allows
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed
