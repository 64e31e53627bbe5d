"""The process's own memory: how much it took, and keeping what was freed."""

from __future__ import annotations

import ctypes
import sys

import torch

from cliptex import machine

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of mallopt's parameters in glibc's malloc.h


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


def peak_memory() -> int:
    """The most bytes in use so far: of the GPU's allocator, else resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return machine.peak_memory()
