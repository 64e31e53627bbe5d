"""The device that a name given on the command line means."""

from __future__ import annotations

import os

import torch


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
            f"--device {name}: there is no such device here; try auto or cpu"
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
