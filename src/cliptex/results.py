"""Rows of `results.jsonl`: the only thing that tables, figures and comparisons are made from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cliptex.console import say
from cliptex.files import append_lines, parse_json

CONTROLS = ("random-init", "pixels", "mean prediction")
"""Names of models that have learnt nothing from pictures and text: what their scores say is what
the architecture, the pixels with their places, and the frequencies of the answers give alone."""


TEST_SPLIT = "test_split"
"""The protocol's key for the split that was scored."""

CONTROL_OF = "control_of"
"""The protocol's key, of rows of `CONTROLS`, for {"model", "checkpoint"} of the model that the
control was made for: its architecture and settings are those of that model."""

TIED = ("tied_images", "tied_captions")
"""The protocol's keys for the number of queries whose right answer scores as a wrong one."""

LONGEST_ROW = 2**24
"""Bytes of a row, at most: one with an IoU for each of a thousand classes has 100,000."""

FIRST_LINES = 100
"""Lines among which a results file has a row."""

BLANK = b" \t\r\n\xef\xbb\xbf"
"""Bytes of a line that holds nothing, a byte order mark's among them."""


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
        """What tells apart tests by one probe and metric: `paper recipe, eigen, 512 px, val split`.

        From the protocol's `recipe` (of the probe's training), `name` (of the scoring rules),
        `templates` (of zero-shot prompts, by their name or number), `crop` (of what zero-shot
        sees, where it is not the whole), `resolution` and `test_split`; "" where it has none of
        them. Rows of SSD without `layers` are of the head that preceded the authors' layers.
        """
        told = self.protocol
        recipe, name, side = (told.get(key) for key in ("recipe", "name", "resolution"))
        prompts, crop, split = (told.get(key) for key in ("templates", "crop", TEST_SPLIT))
        if isinstance(prompts, list | tuple):
            prompts = f"{len(prompts)} own"
        earlier = self.probe == "ssd" and "head" in told and "layers" not in told
        parts = (
            recipe and f"{recipe} recipe",
            earlier and "earlier head",
            name,
            prompts and f"{prompts} prompts",
            f"{crop} crop" if isinstance(crop, str) and crop != "squash" else "",
            side and f"{side} px",
            split and f"{split} split",
        )
        return ", ".join(str(part) for part in parts if part)


def append_results(path: Path, rows: Iterable[Result]) -> None:
    """Append `rows` to the JSON-lines file at `path`, all of them or, on a full disk, none.

    A last line without its end, as some editors and killed processes leave it, is ended first.

    A row whose value is not finite is undefined: no test image holds what its metric counts. It is
    not written but said on standard error.
    """
    kept = [row for row in rows if _defined(row, f"not written to {path}")]
    append_lines(path, "".join(row.model_dump_json() + "\n" for row in kept).encode())


def read_results(path: Path) -> list[Result]:
    """All rows of `path`.

    A line that is no row, such as half of one that a killed process left, is left out, and once
    said on standard error with its number; so is a line whose value is null or NaN (undefined, see
    `append_results`). Raises ValueError where there are lines and none of them is a row.
    """
    rows, torn = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip(BLANK):
            continue
        try:
            row = _row_of(line)
        except ValueError as error:
            torn.append(f"{path}, line {number}: not a result row: {error}")
            continue
        rows.append((number, row))
    if torn and not rows:
        raise ValueError(torn[0])
    for message in torn:
        _say_once(f"{message}; the line is left out, remove it")
    return [row for number, row in rows if _defined(row, f"line {number} of {path} is left out")]


@cache
def _say_once(message: str) -> None:
    say(message)


def first_line(path: Path) -> bytes:
    """The first line of a file that is not blank; b"" where there is none. Reads no more of it."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST_ROW):
            if line.strip(BLANK):
                return line
    return b""


def holds_rows(path: Path) -> bool:
    """Whether one of the first lines of a file is a result row; the very first may be torn."""
    with path.open("rb") as file:
        lines = [file.readline(LONGEST_ROW) for _ in range(FIRST_LINES)]
    return any(map(_is_row, lines))


def _is_row(line: bytes) -> bool:
    try:
        _row_of(line)
    except ValueError:
        return False
    return True


def _row_of(line: bytes) -> Result:
    """ValueError that says, in a few words, why it is no row."""
    try:
        content = parse_json(line.decode("utf-8-sig"))  # some editors begin a file with a mark
        if isinstance(content, dict) and content.get("value", 0) is None:
            content["value"] = math.nan
        return Result.model_validate(content)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text ({error}): save the file as UTF-8") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")) from error


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
