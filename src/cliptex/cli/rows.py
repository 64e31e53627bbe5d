"""Where rows go: into the results file as soon as they are there, and onto the screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliptex.files import check_can_make

if TYPE_CHECKING:
    from cliptex.results import Result

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
