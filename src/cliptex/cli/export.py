"""`cliptex export`: a trained model in the format of another library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from cliptex.cli.help import verb


@verb(
    "cliptex export playroom --to open-clip --out exported",
    "cliptex export runs/cliptex/checkpoints/final --to onnx --size 512 512"
    " --heads keep --out onnx",
)
def export(
    checkpoint: Positional[str],
    /,
    to: Literal["open-clip", "timm", "hf", "onnx"],
    out: Path,
    heads: Literal["keep", "drop"] = "drop",
    size: tuple[int, int] | None = None,
) -> None:
    """Write a model for open_clip, timm, Hugging Face or ONNX, and compare it with the original.

    Args:
        checkpoint: RUN/checkpoints/final, another folder of a model, `playroom`,
            `open_clip:NAME/TAG_OR_FILE`, `timm:NAME/TAG_OR_FILE`, `corenet:FILE` or
            `hf-hub:ORG/NAME`.
        to: the format; timm and ONNX hold only the image tower.
        out: a new folder.
        heads: keep the task heads (only ONNX holds them).
        size: height and width of images of an ONNX model; by default those of training.
    """
    from cliptex.models.export import export_clip

    done = export_clip(checkpoint, to, out, heads=heads == "keep", size=size)
    for note in done.notes:
        print(note, file=sys.stderr)
    print(f"largest difference from {checkpoint}: {done.difference:.2g}")
    print(done.folder)
