"""Controls for every probe: encoders that have learnt nothing, and rows of the mean answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cliptex.models.encoder import FrozenEncoder, PixelEncoder
from cliptex.results import CONTROL_OF, CONTROLS, Result

if TYPE_CHECKING:
    from cliptex.models.clip import Clip

RANDOM, PIXELS, MEAN = CONTROLS


def control_encoders(clip: Clip, seed: int = 0) -> dict[str, FrozenEncoder]:
    """Encoders to probe beside that of `clip`, by the names that their rows have.

    `random-init` is the same architecture with weights drawn from `seed`; `pixels` is
    `PixelEncoder` with cells of the same size.
    """
    from cliptex.models.clip import random_clip  # open_clip takes seconds to import

    stride, side = clip.image.stride, clip.image.image_size
    return {
        RANDOM: FrozenEncoder(random_clip(clip.config, seed).image),
        PIXELS: FrozenEncoder(PixelEncoder(stride, side)),
    }


def control_of(model: str, checkpoint: str) -> dict[str, object]:
    """What rows of a control say of the model that it was made for."""
    return {CONTROL_OF: {"model": model, "checkpoint": checkpoint}}


def in_place_of(rows: Sequence[Result], tests: Sequence[Result]) -> list[Result]:
    """`rows` of the mean answer, which no probe gave, as rows of the probes that gave `tests`.

    Each row comes once per probe, recipe and resolution of the tests with its task, data set,
    metric and scoring protocol, so that the report shows it in the columns of all of them; it
    says that it is a control of the test's model.
    """
    found: dict[tuple[object, ...], Result] = {}
    for test in tests:
        for row in rows:
            if _question(row) == _question(test):
                same = {k: test.protocol[k] for k in ("recipe", "resolution") if k in test.protocol}
                protocol = {**row.protocol, **same, **control_of(test.model, test.checkpoint)}
                placed = row.model_copy(update={"probe": test.probe, "protocol": protocol})
                found.setdefault((*_question(placed), placed.probe, placed.variant), placed)
    return list(found.values())


def _question(row: Result) -> tuple[object, ...]:
    return (row.task, row.dataset, row.metric, row.protocol.get("name", ""))
