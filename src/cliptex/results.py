"""Rows of `results.jsonl`: the only thing that tables, figures and comparisons are made from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cliptex.console import say

CONTROLS = ("random-init", "pixels", "mean prediction")
"""Names of models that have learnt nothing from pictures and text: what their scores say is what
the architecture, the pixels with their places, and the frequencies of the answers give alone."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Result(BaseModel):
    """One measured number with all that is needed to read it.

    `value` is 0-100 for percentages and a fraction for AbsRel. `n` counts test images.
    `protocol` holds what the number depends on: crop, range, alignment, resolution, ignore
    index, learning rate and how it was chosen. `leak` marks a benchmark that an expert learnt
    from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    checkpoint: str = ""
    task: str
    dataset: str
    probe: str | None = None
    metric: str
    value: float
    better: Literal["higher", "lower"]
    n: int
    seed: int = 0
    protocol: dict[str, object] = Field(default_factory=dict)
    leak: bool = False
    time: str = Field(default_factory=_now)

    @property
    def variant(self) -> str:
        """What tells apart tests by one probe and metric: `paper recipe, eigen, 512 px`.

        From the protocol's `recipe` (of the probe's training), `name` (of the scoring rules),
        `templates` (of zero-shot prompts, by their name or number), `crop` (of what zero-shot
        sees, where it is not the whole) and `resolution`; "" where it has none of them.
        """
        told = self.protocol
        recipe, name, side = (told.get(key) for key in ("recipe", "name", "resolution"))
        prompts, crop = told.get("templates"), told.get("crop")
        if isinstance(prompts, list | tuple):
            prompts = f"{len(prompts)} own"
        parts = (
            recipe and f"{recipe} recipe",
            name,
            prompts and f"{prompts} prompts",
            f"{crop} crop" if isinstance(crop, str) and crop != "squash" else "",
            side and f"{side} px",
        )
        return ", ".join(str(part) for part in parts if part)


def append_results(path: Path, rows: Iterable[Result]) -> None:
    """Append `rows` to the JSON-lines file at `path` with one write.

    A row whose value is not finite is undefined: no test image holds what its metric counts. It is
    not written but said on standard error.
    """
    kept = [row for row in rows if _defined(row, f"not written to {path}")]
    lines = "".join(row.model_dump_json() + "\n" for row in kept).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:  # unbuffered: processes that append do not mix
        if file.write(lines) < len(lines):
            raise OSError(f"{path}: only a part of the rows was written; is the disk full?")
        os.fsync(file.fileno())


def read_results(path: Path) -> list[Result]:
    """All rows of `path`; raises ValueError that names the line which does not fit.

    A line whose value is null or NaN (undefined, see `append_results`) is left out and said on
    standard error.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
            if isinstance(content, dict) and content.get("value", 0) is None:
                content["value"] = math.nan
            row = Result.model_validate(content)
        except (json.JSONDecodeError, ValidationError) as error:
            raise ValueError(f"{path}, line {number}: not a result row: {error}") from error
        if _defined(row, f"line {number} of {path} is left out"):
            rows.append(row)
    return rows


def _defined(row: Result, otherwise: str) -> bool:
    """Whether the value is finite; what happens to the row `otherwise` is said."""
    if math.isfinite(row.value):
        return True
    probe = f" by {row.probe}" if row.probe else ""
    say(
        f"{row.model}, seed {row.seed}: {row.metric} of {row.task} on {row.dataset}{probe} is "
        f"undefined, none of {row.n} test images holds what it counts: {otherwise}"
    )
    return False
