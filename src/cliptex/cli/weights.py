"""Which weights a model's name stands for, tower by tower, and which process this is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliptex.models.clip import Clip

IMAGE, TEXT = "image", "text"
RANDOM = "random"


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
