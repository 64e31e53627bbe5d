"""The device that a name given on the command line means."""

from __future__ import annotations

import os

import torch


def pick_device(name: str) -> torch.device:
    """The device called `name`; auto is the GPU that torchrun means, or the first, or the CPU.

    ValueError where there is no such device.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: there is no such device here; try cpu") from error
    return device
