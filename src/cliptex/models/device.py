"""Devices: the one that a name means, and the precision in which it computes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from cliptex.models.config import HeadPrecision, Precision


def pick_device(name: str) -> torch.device:
    """The device called `name`; ValueError where there is no such device.

    auto is a CUDA GPU, else Apple's GPU (mps), else the CPU. Under torchrun, which starts a process
    for each GPU, auto and cuda are the GPU of this process.
    """
    if name == "auto":
        name = _best()
    if name == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"`device={name}`: this machine has no such device; use auto or cpu"
        ) from error
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def synchronize(device: torch.device) -> None:
    """Return when `device` has done all that it was asked for: GPUs answer before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


_Flags = tuple[str, bool]  # torch's precision of float32 products, TF32 in convolutions
_FLAGS: dict[HeadPrecision, _Flags] = {"fp32": ("highest", False), "tf32": ("high", True)}
_lock = threading.Lock()
_within: list[list[_Flags]] = []  # the outermost first; a list each, to be told apart


@contextmanager
def products(precision: HeadPrecision) -> Iterator[None]:
    """Matrix products and convolutions of float32 tensors in fp32, or in TF32 where a GPU has it.

    The settings are those of the whole process, and torch by itself allows TF32 in convolutions.
    So they are set back once the last of several threads has left; until then the youngest rules.
    """
    own = [_FLAGS[precision]]
    with _lock:
        if not _within:
            _within.append([(torch.get_float32_matmul_precision(), _cudnn().allow_tf32)])
        _within.append(own)
        _set_flags(own[0])
    try:
        yield
    finally:
        with _lock:
            _within[:] = [one for one in _within if one is not own]
            _set_flags(_within[-1][0])
            if len(_within) == 1:
                _within.clear()


def _set_flags(flags: _Flags) -> None:
    torch.set_float32_matmul_precision(flags[0])
    _cudnn().allow_tf32 = flags[1]


def _cudnn() -> Any:
    return torch.backends.cudnn  # a module that is also a set of settings


@contextmanager
def computed_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """A forward pass on `device` in `precision`; outputs may be bfloat16."""
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with products("tf32" if precision == "tf32" else "fp32"), half:
        yield


def pick_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision | None:
    """What `name` means on `device`: auto is bf16 on a GPU that has it, else None: the recipe's.

    ValueError for tf32 where nothing can compute in it.
    """
    if name == "auto":
        return "bf16" if _ampere(device) else None
    if name == "tf32":
        require_tf32("precision", device)
    return name


def require_tf32(field: str, device: torch.device) -> None:
    """ValueError, naming the `field`, where `device` is no NVIDIA GPU since Ampere."""
    if not _ampere(device):
        raise ValueError(
            f"`{field}=tf32`: {device} has no TF32 (NVIDIA GPUs have it since Ampere); leave it "
            "out or use fp32"
        )


def _ampere(device: torch.device) -> bool:
    """Whether `device` is an NVIDIA GPU with TF32 and bfloat16 in its tensor cores."""
    cuda = device.type == "cuda" and torch.version.hip is None
    return cuda and torch.cuda.get_device_capability(device)[0] >= 8
