"""Export one model to one format: load, write, compare with the original, describe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from cliptex.files import check_can_make, new_folder, sha256_file
from cliptex.machine import need
from cliptex.models.clip import Clip, load_clip
from cliptex.models.cliptex import Cliptex, build_cliptex
from cliptex.models.config import (
    CORENET,
    HUB,
    OPEN_CLIP,
    TIMM,
    DenseConfig,
    read_provenance,
    write_provenance,
)
from cliptex.models.export.folders import (
    HF_CODE,
    OPEN_CLIP_CODE,
    check_hf,
    check_open_clip,
    write_hf,
    write_open_clip,
)
from cliptex.models.export.image_towers import (
    ONNX_CODE,
    TIMM_CODE,
    check_onnx,
    check_timm,
    write_onnx,
    write_timm,
)
from cliptex.models.sources import MODEL_FILE, check_file, find_folder, load_exactly

Target = Literal["open-clip", "timm", "hf", "onnx"]
# Largest difference from the original that an export may have.
BOUNDS: dict[Target, float] = {"open-clip": 0.0, "timm": 1e-4, "hf": 1e-5, "onnx": 1e-4}
PACKAGES: dict[Target, tuple[str, ...]] = {
    "open-clip": (),
    "timm": (),
    "hf": ("transformers",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
_TEXTS = ["a photo of a dog", "two chairs and a lamp"]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: where.
        difference: the largest from the original's embeddings (ONNX: from any output).
        notes: what the format does not say by itself.
    """

    folder: Path
    difference: float
    notes: tuple[str, ...]


def export_clip(
    checkpoint: str,
    to: Target,
    out: Path,
    *,
    heads: bool = False,
    size: tuple[int, int] | None = None,
) -> Export:
    """Write `checkpoint` to the new folder `out` for another library, and check it by loading it.

    Args:
        checkpoint: what `load_clip` takes, such as RUN/checkpoints/final.
        to: the format.
        heads: keep the task heads (only ONNX can hold them).
        size: height and width of images of an ONNX model; by default those of training.

    Raises ValueError for what the format cannot hold, and where the written model differs; `out`
    is whole or not there.
    """
    check_can_make(out, "the folder of the export")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"`out`: {out} is not empty; choose another folder for the export")
    if heads and to != "onnx":
        raise ValueError(f"{to} cannot hold `heads`: leave them out, or use `to=onnx`")
    if size is not None and to != "onnx":
        raise ValueError(f"`size` applies only to ONNX: leave it out for {to}")
    for package in PACKAGES[to]:
        need(package, extra="export", what=f"an export to {to}")
    source = load_checkpoint(checkpoint, heads=heads)
    _check_size(size, source)
    with new_folder(out) as folder:
        card, difference = _write(source, to, folder, size)
        if difference > BOUNDS[to]:
            raise ValueError(
                f"{out}: the exported model would differ from {checkpoint} by {difference:.3g}, "
                f"more than {BOUNDS[to]:g}: it was not written"
            )
        write_card(card, source, folder, difference)
        if (provenance := read_provenance(checkpoint)).experts:
            write_provenance(folder, provenance)
    return Export(out, difference, tuple(card.notes))


def _check_size(size: tuple[int, int] | None, source: Checkpoint) -> None:
    stride = source.clip.image.stride
    if size is not None and any(side < 1 or side % stride for side in size):
        raise ValueError(
            f"`size`: {size[0]} x {size[1]} pixels do not divide into cells of {stride}: give "
            f"multiples of {stride}"
        )


def _write(
    source: Checkpoint, target: Target, out: Path, size: tuple[int, int] | None
) -> tuple[Card, float]:
    clip = source.clip
    side = clip.image.image_size
    height, width = size or (side, side)
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    values = {"size": side, "mean": list(clip.config.mean), "std": list(clip.config.std)}
    if target == "onnx":
        tower = write_onnx(clip, source.heads, out, (height, width))
        code = ONNX_CODE.format(height=height, width=width)
        notes = [
            f"Images are (batch, 3, {height}, {width}), RGB in [0, 1]: mean and std are applied "
            f"inside. Outputs: {', '.join(f'`{name}`' for name in tower.outputs)}. The embedding "
            f"has length 1; `dense` is the map of {clip.image.channels} channels, one cell per "
            f"{clip.image.stride} pixels."
        ]
        return Card("ONNX image tower", code, notes), check_onnx(tower, out, images)
    if target == "timm":
        form = write_timm(clip, out)
        arguments = "".join(f"{key}={value!r}, " for key, value in form.arguments.items())
        code = TIMM_CODE.format(
            **values, architecture=form.architecture, dim=clip.image.embed_dim, arguments=arguments
        )
        notes = ["The text tower is not part of it. The classifier is the projection of CLIP."]
        return Card("timm image tower", code, notes), check_timm(clip, out, images)
    tokens = clip.tokenize(_TEXTS)
    if target == "hf":
        notes = write_hf(clip, out)
        card = Card("Hugging Face CLIPModel", HF_CODE.format(**values), notes)
        return card, check_hf(clip, out, images, tokens)
    notes = write_open_clip(clip, out)
    code = OPEN_CLIP_CODE.replace("{size}", str(side))
    return Card("open_clip model", code, notes), check_open_clip(clip, out, images, tokens)


HEADS_FILE, RUN_CONFIG = "heads.safetensors", "config.yaml"
_LAST_LAYER = re.compile(r"heads\.([^.]+)\.(?:(\d+)\.)?bias")


@dataclass(frozen=True)
class Checkpoint:
    """A model to export.

    Attributes:
        name: as it was given.
        sha256: of the weights' file, "" where no one file holds them.
        clip: in evaluation mode.
        heads: pyramid and heads around `clip`, where they are asked for.
    """

    name: str
    sha256: str
    clip: Clip
    heads: Cliptex | None = None


def load_checkpoint(name: str, *, heads: bool) -> Checkpoint:
    """Load `name`, which is anything that `load_clip` takes; `heads` asks for the heads, too.

    Raises ValueError where the heads are not there or do not fit.
    """
    clip = load_clip(name)
    return Checkpoint(name, _sha256(name), clip, _heads(name, clip) if heads else None)


def _sha256(name: str) -> str:
    for prefix in (OPEN_CLIP, TIMM):
        if name.startswith(prefix):
            file = Path(name.partition("/")[2])
            break
    else:
        if name.startswith(HUB):
            return ""
        file = Path(name.removeprefix(CORENET))
        file = file if name.startswith(CORENET) else find_folder(name) / MODEL_FILE
    return sha256_file(file) if file.is_file() else ""


def _heads(name: str, clip: Clip) -> Cliptex:
    file = Path(name) / HEADS_FILE
    if not file.is_file():
        raise ValueError(
            f"{name}: has no {HEADS_FILE}: only RUN/checkpoints/final of a run with tasks has "
            f"heads; export without them"
        )
    check_file(Path(name), HEADS_FILE)
    state = load_file(file)
    channels = _channels(state, file)
    model = build_cliptex(clip, channels, _dense(Path(name)), seed=0).eval()
    own = {key for key in model.state_dict() if not key.startswith("clip.")}
    rest = model.state_dict()
    load_exactly(model, {**{k: v for k, v in rest.items() if k not in own}, **state}, str(file))
    return model


def _channels(state: Mapping[str, Tensor], file: Path) -> dict[str, int]:
    """Task -> outputs: the length of the last layer's bias."""
    last: dict[str, tuple[int, int]] = {}
    for key, value in state.items():
        match = _LAST_LAYER.fullmatch(key)
        if match:
            task, layer = match[1], int(match[2] or 0)
            last[task] = max(last.get(task, (-1, 0)), (layer, len(value)))
    if not last:
        raise ValueError(f"{file}: no key heads.TASK.bias: not the heads of a run")
    return {task: outputs for task, (_, outputs) in sorted(last.items())}


def _dense(folder: Path) -> DenseConfig:
    """Form of pyramid and heads, from the configuration of the run that `folder` lies in."""
    file = folder.resolve().parents[1] / RUN_CONFIG
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist: the heads in {folder} cannot be rebuilt without the run's "
            f"configuration; export RUN/checkpoints/final where the run lies"
        )
    try:
        return DenseConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))["dense"])
    except (yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise ValueError(f"{file}: key 'dense' does not describe heads: {error}") from error


CARD = "README.md"


@dataclass(frozen=True)
class Card:
    """title: kind of model; code: Python that loads it; notes: what else to know."""

    title: str
    code: str
    notes: list[str]


def write_card(card: Card, source: Checkpoint, folder: Path, difference: float) -> Path:
    """Write README.md into `folder`; its code runs as it stands with the folder as working one."""
    config, image = source.clip.config, source.clip.image
    weights = f"sha256 `{source.sha256}`" if source.sha256 else "no single file"
    colours = [", ".join(f"{x:g}" for x in values) for values in (config.mean, config.std)]
    lines = [
        f"# {card.title}",
        "",
        f"Exported by cliptex {version('cliptex')}.",
        "",
        f"- From: `{source.name}` ({weights})",
        f"- Embedding: {image.embed_dim} numbers; trained at {image.image_size} pixels; "
        f"sides must be multiples of {image.stride}",
        f"- Colours of images in [0, 1]: mean {colours[0]}; std {colours[1]}",
        f"- Largest difference from the original when it was written: {difference:.2g}",
        "",
        "```python",
        card.code.rstrip(),
        "```",
        *(f"\n{note}" for note in card.notes),
    ]
    path = folder / CARD
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
