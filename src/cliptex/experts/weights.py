"""Weight files of networks that are built here: read without trust, matched name by name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

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
