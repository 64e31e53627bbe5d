"""Any PyTorch network as an expert: batches by shape, precision, and the retry in float32.

On the CPU one network runs at a time, with all of PyTorch's threads: several at once, each with as
many threads, would only wait for each other. What comes before and after a network overlaps.

Weight files are read without trust and matched to a network name by name.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.experts.protocol import ExpertSpec, Placement, Precision, Prediction
from cliptex.models.device import pick_device, products

SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file holding a state dict.

    A dict under the key "model" is opened, and the prefix "module." of distributed training
    removed. Raises FileNotFoundError, and ValueError for a file that holds anything else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such weight file; download it first")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not a readable weight file: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in content.items()
    ):
        raise ValueError(f"{path} holds no state dict, neither at its top nor under 'model'")
    return {name.removeprefix("module."): x for name, x in content.items()}


def load_exactly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put `state`, in float32, into `network`, which may lie on the meta device.

    Raises ValueError, naming `path`, unless names and shapes agree.

    One error tells all: how many tensors are missing, unexpected or of another shape, and which.
    """
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    other = [
        f"{name} {tuple(x.shape)} instead of {tuple(own[name].shape)}"
        for name, x in state.items()
        if name in own and x.shape != own[name].shape
    ]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", other),
        )
        if names
    ]
    if parts:
        raise ValueError(
            f"{path} is no checkpoint of {type(network).__name__}: {'; '.join(parts)}; "
            "use the file its authors released"
        )
    in_float32 = {name: x.float() if x.is_floating_point() else x for name, x in state.items()}
    network.load_state_dict(in_float32, assign=True)


_CPU = threading.Lock()
Outputs = dict[str, Tensor]
"""What the network says about one image: named tensors without a batch axis."""


@dataclass(frozen=True)
class Adapter:
    """What one family of networks needs besides its weights.

    prepare: image (H, W, 3) uint8 -> (3, h, w) float32, the network's input.
    forward: (network, batch (B, 3, h, w)) -> B outputs; runs under autocast.
    read: (outputs in float32 on the CPU, image size (H, W)) -> the prediction.
    """

    prepare: Callable[[np.ndarray], Tensor]
    forward: Callable[[Any, Tensor], list[Outputs]]
    read: Callable[[Outputs, tuple[int, int]], Prediction]


class TorchExpert:
    """An `Expert` made of a network and its `Adapter`.

    Images of one input shape share a batch. Where an image's output in half precision is not
    finite, it is computed once more, alone, in float32. Float32 is never TF32, which torch would
    take for convolutions on GPUs that have it. Half precision changes labels, so the
    spec's `preprocessing` names it. Raises ValueError where there is no such device.
    """

    def __init__(
        self,
        spec: ExpertSpec,
        network: nn.Module,
        adapter: Adapter,
        placement: Placement = Placement(),  # noqa: B008 (frozen)
    ) -> None:
        if placement.precision != "float32":
            preprocessing = {**spec.preprocessing, "precision": placement.precision}
            spec = replace(spec, preprocessing=preprocessing)
        self.spec = spec
        self.adapter = adapter
        self.placement = placement
        _refuse_missing(torch.device(placement.device))
        network = network.eval().requires_grad_(False).to(placement.device)
        if placement.device != "mps":
            # Convolutions are up to 1.7 times as fast on a CPU with channels last.
            network = network.to(memory_format=torch.channels_last)
        self.network = network

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """One prediction per image (H_i, W_i, 3) uint8."""
        inputs = [self.adapter.prepare(image) for image in images]
        by_shape: dict[torch.Size, list[int]] = {}
        for i, x in enumerate(inputs):
            by_shape.setdefault(x.shape, []).append(i)
        outputs: dict[int, Outputs] = {}
        for positions in by_shape.values():
            batch = torch.stack([inputs[i] for i in positions])  # (B, 3, h, w)
            outputs.update(zip(positions, self._forward(batch), strict=True))
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return [self.adapter.read(outputs[i], size) for i, size in enumerate(sizes)]

    def _forward(self, batch: Tensor) -> list[Outputs]:
        """One dict of float32 CPU tensors per image of a batch (B, 3, h, w)."""
        results = self._run(batch, self.placement.precision)
        if self.placement.precision != "float32":
            for i, result in enumerate(results):
                if not _is_finite(result):
                    (results[i],) = self._run(batch[i : i + 1], "float32")
        return results

    def _run(self, batch: Tensor, precision: Precision) -> list[Outputs]:
        device = torch.device(self.placement.device)
        half = precision != "float32"
        turn: AbstractContextManager = _CPU if device.type == "cpu" else nullcontext()
        autocast = torch.autocast(device.type, getattr(torch, precision), enabled=half)
        with turn, products("fp32"), autocast:  # what stays float32 is no TF32
            results = self.adapter.forward(self.network, batch.to(device))
        return [
            {name: x.float().cpu() if x.is_floating_point() else x.cpu() for name, x in r.items()}
            for r in results
        ]


def _refuse_missing(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"there is no device {device}: PyTorch sees {count} CUDA devices; install a PyTorch "
            "that was built for this machine's driver, or label with `device=cpu`"
        )
    if device.type != "cuda":
        pick_device(str(device))


def _is_finite(outputs: Outputs) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in outputs.values() if x.is_floating_point())
