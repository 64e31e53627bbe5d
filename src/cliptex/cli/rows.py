"""Rows on the command line: which weights they are of, and where they go once they are there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptex.files import check_can_make

if TYPE_CHECKING:
    from cliptex.models.clip import Clip
    from cliptex.results import Result

IMAGE, TEXT = "image", "text"
RANDOM = "random"
PER_IMAGE = "per_image"  # where the report looks for it, beside the rows


def check_writable(out: Path) -> None:
    """OSError where `out` cannot be appended to: known before hours of work, not after.

    ValueError where it begins with anything but a result row. Makes and removes nothing: a refused
    command leaves the disk as it was, and other processes of torchrun may be at `out` already.
    """
    if out.exists():
        with out.open("ab"):
            pass
        _require_rows(out)
    else:
        check_can_make(out.parent, "the folder of --out")


def _require_rows(out: Path) -> None:
    from cliptex.results import first_line, holds_rows

    if out.is_file() and first_line(out) and not holds_rows(out):
        raise ValueError(
            f"--out {out}: not a results file (none of its first lines is a result row), and rows "
            "would be appended to it; name another"
        )


def record(out: Path, outcome: Any, facts: Mapping[str, object]) -> list[Result]:
    """Append the rows of `outcome` with `facts` in their protocol, and what images add to them."""
    rows = [
        row.model_copy(update={"protocol": {**row.protocol, **facts}}) for row in outcome.results
    ]
    record_rows(out, rows)
    dataclasses.replace(outcome, results=rows).save_per_image(out.parent / PER_IMAGE)
    return rows


def record_rows(out: Path, rows: list[Result]) -> None:
    """Append and show rows that have nothing per image."""
    from cliptex.results import TIED, append_results

    append_results(out, rows)
    for row in rows:
        kind = f" {row.probe}" if row.probe else ""
        name = row.protocol.get("name")
        metric = f"{row.metric} ({name})" if name else row.metric
        label = f"{row.task}{kind} {metric} on {row.dataset}, seed {row.seed}"
        ties = [
            f"{row.protocol[key]} {key.replace('_', ' ')}" for key in TIED if row.protocol.get(key)
        ]
        about = ", ".join([f"n {row.n}", *ties])
        print(f"{row.model}  {label}: {row.value:.4g} ({about})", flush=True)


def random_towers(model: str) -> frozenset[str]:
    """Those of `image` and `text` that nothing has trained: names without weights have both so,
    and timm's weights are of pictures alone."""
    from cliptex.models.config import CORENET, OPEN_CLIP, TIMM, split_name

    name, weights = split_name(model)
    if name.startswith((OPEN_CLIP, TIMM)) and weights is None:
        return frozenset((IMAGE, TEXT))
    if name.startswith(CORENET) and not Path(name.removeprefix(CORENET)).exists():
        return frozenset((IMAGE, TEXT))
    return frozenset((TEXT,)) if name.startswith(TIMM) else frozenset()


def check_text(model: str) -> None:
    """ValueError where only the text tower is random: its zero-shot scores would be chance."""
    from cliptex.models.config import split_name

    if random_towers(model) == {TEXT}:
        raise ValueError(
            f"{model} has trained weights for pictures only, and its text tower would be random: "
            "zero-shot needs both; give a model with text (open_clip:NAME/TAG, a saved folder), or "
            f"{split_name(model)[0]} for random weights throughout, which rows mark"
        )


def checkpoint_of(model: str, clip: Clip) -> str:
    """What rows say of the weights.

    "random" where nothing has trained the image tower; sha256 of `model.safetensors` for a model
    saved here; else sha256 over the loaded parameters of both towers (`fingerprint` of
    models.encoder), since a tag or a hub name may come to mean other weights.
    """
    from cliptex.files import sha256_file
    from cliptex.models.config import PLAYROOM
    from cliptex.models.encoder import fingerprint
    from cliptex.models.sources import find_folder

    if IMAGE in random_towers(model):
        return RANDOM
    weights = (find_folder(model) if model == PLAYROOM else Path(model)) / "model.safetensors"
    return sha256_file(weights) if weights.is_file() else fingerprint(clip)


def process_of() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
