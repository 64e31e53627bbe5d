"""Tiny models in folders, to export from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cliptex.models.clip import Clip, save_clip


@pytest.fixture
def saved(tiny: Callable[..., Clip], tmp_path: Path) -> Callable[..., tuple[Clip, Path]]:
    """A tiny model of a family and the folder it is saved in."""

    def make(family: str, **changes: Any) -> tuple[Clip, Path]:
        clip = tiny(family, seed=5, **changes)
        return clip, save_clip(clip, tmp_path / family)

    return make
