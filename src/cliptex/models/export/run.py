"""Export one model to one format: write, compare with the original, describe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cliptex.files import check_can_make, new_folder
from cliptex.machine import need
from cliptex.models.export.card import Card, write_card
from cliptex.models.export.hf_folder import CODE as HF_CODE
from cliptex.models.export.hf_folder import check_hf, write_hf
from cliptex.models.export.onnx_tower import CODE as ONNX_CODE
from cliptex.models.export.onnx_tower import check_onnx, write_onnx
from cliptex.models.export.open_clip_folder import CODE as OPEN_CLIP_CODE
from cliptex.models.export.open_clip_folder import check_open_clip, write_open_clip
from cliptex.models.export.source import Checkpoint, load_checkpoint
from cliptex.models.export.timm_tower import CODE as TIMM_CODE
from cliptex.models.export.timm_tower import check_timm, write_timm
from cliptex.models.provenance import read_provenance, write_provenance

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
    target: Target,
    out: Path,
    *,
    heads: bool = False,
    size: tuple[int, int] | None = None,
) -> Export:
    """Write `checkpoint` to the new folder `out` for another library, and check it by loading it.

    Args:
        checkpoint: what `load_clip` takes, such as RUN/checkpoints/final.
        target: the format.
        heads: keep the task heads (ONNX alone can hold them).
        size: height and width of images of an ONNX model; by default those of training.

    Raises ValueError for what the format cannot hold, and where the written model differs; `out`
    is whole or not there.
    """
    check_can_make(out, "the folder of the export")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another folder for the export")
    if heads and target != "onnx":
        raise ValueError(f"{target} has no place for heads: drop them, or use --to onnx")
    if size is not None and target != "onnx":
        raise ValueError(f"size is fixed in ONNX alone: leave it out for {target}")
    for package in PACKAGES[target]:
        need(package, extra="export", what=f"an export to {target}")
    source = load_checkpoint(checkpoint, heads=heads)
    _check_size(size, source)
    with new_folder(out) as folder:
        card, difference = _write(source, target, folder, size)
        if difference > BOUNDS[target]:
            raise ValueError(
                f"{out}: the exported model would differ from {checkpoint} by {difference:.3g}, "
                f"more than {BOUNDS[target]:g}: it was not written"
            )
        write_card(card, source, folder, difference)
        if (provenance := read_provenance(checkpoint)).experts:
            write_provenance(folder, provenance)
    return Export(out, difference, tuple(card.notes))


def _check_size(size: tuple[int, int] | None, source: Checkpoint) -> None:
    stride = source.clip.image.stride
    if size is not None and any(side < 1 or side % stride for side in size):
        raise ValueError(
            f"size: {size[0]} x {size[1]} pixels do not divide into cells of {stride}: give "
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
