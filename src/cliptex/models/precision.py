"""In what precision products are computed, and how many of them a second a GPU can do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

Precision = Literal["fp32", "tf32", "bf16"]
"""fp32: single precision. tf32: single precision whose products read 10 bits of each factor, on
NVIDIA GPUs since Ampere. bf16: autocast to bfloat16; weights, norms and sums stay fp32."""
HeadPrecision = Literal["fp32", "tf32"]
Gpu = Literal["a100", "h100", "h200", "l40s", "l4", "rtx4090"]
GPUS: tuple[Gpu, ...] = get_args(Gpu)

PEAKS: dict[Gpu, dict[Precision, float]] = {
    "a100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0},
    "h100": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "h200": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    "l40s": {"fp32": 91.6, "tf32": 183.0, "bf16": 362.0},
    "l4": {"fp32": 30.3, "tf32": 60.0, "bf16": 121.0},
    "rtx4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2},
}
"""TFLOP/s of dense products with sums in fp32, from NVIDIA's data sheets (A100; H100 and H200 as
SXM; L40S; L4) and, for the RTX 4090, its Ada white paper. The sheets' numbers "with sparsity" are
twice those of tf32 and bf16."""


@contextmanager
def products(precision: HeadPrecision) -> Iterator[None]:
    """Matrix products and convolutions of float32 tensors in fp32, or in TF32 where a GPU has it.

    Whatever was set before (torch allows TF32 in convolutions by itself) is set again afterwards.
    """
    matmul: Any = torch.backends.cuda.matmul  # both are modules that are also settings
    cudnn: Any = torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


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
        require_tf32("--precision", device)
    return name


def require_tf32(option: str, device: torch.device) -> None:
    """ValueError, naming the option, where `device` is no NVIDIA GPU since Ampere."""
    if not _ampere(device):
        raise ValueError(
            f"{option} tf32: {device} has no TF32, which NVIDIA GPUs have since Ampere; leave it "
            "out, or name fp32"
        )


def _ampere(device: torch.device) -> bool:
    """Whether `device` is an NVIDIA GPU with TF32 and bfloat16 in its tensor cores."""
    cuda = device.type == "cuda" and torch.version.hip is None
    return cuda and torch.cuda.get_device_capability(device)[0] >= 8
