"""`cliptex blend`: models between two of one architecture."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from cliptex.cli.help import verb


@verb(
    "cliptex blend playroom runs/demo/cliptex-0/checkpoints/final --out runs/blends",
    "cliptex blend open_clip:ViT-B-16/openai runs/cliptex/checkpoints/final"
    " --alpha 0.5 --out runs/blends",
)
def blend(
    start: Positional[str],
    end: Positional[str],
    /,
    out: Path,
    alpha: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> None:
    """Average the weights of a model and of what was trained from it, in one or more shares.

    `cliptex probe` and `cliptex zeroshot` with `--name blend-ALPHA` then measure what each share
    keeps and gains; the report draws one against the other.

    Args:
        start: the model at 0, such as the one that a training started from.
        end: the model at 1, such as RUN/checkpoints/final.
        out: folder in which a folder blend-ALPHA is written for each share.
        alpha: shares of `end`, from 0 to 1.
    """
    from cliptex.pipeline.blend import blend as blend_models

    print(*blend_models(start, end, alpha, out), sep="\n")
