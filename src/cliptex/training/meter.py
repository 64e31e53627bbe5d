"""What the log says about the steps since its last line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cliptex.training.memory import peak_memory
from cliptex.training.step import StepReport

_WINDOW = "since the last line: "
_COUNTS = ("steps", "applied", "images")


@dataclass
class Meter:
    """Means over the steps since the last line of the log, and where the time went.

    peak: FLOPs a second of all devices together; None leaves `mfu` out.
    steps, applied, images, sums: of the line that is being collected; a checkpoint keeps them.
    timed, flops, waited, since: the same of this process alone, for rates.
    """

    peak: float | None = None
    steps: int = 0
    applied: int = 0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    timed: int = 0
    flops: float = 0.0
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time within as waiting for data."""
        before = time.perf_counter()
        yield
        self.waited += time.perf_counter() - before

    def add(self, report: StepReport, images: int, flops: float) -> None:
        """Count a step of the whole global batch: `images` and arithmetic of all ranks."""
        self.steps += 1
        self.images += images
        self.timed += images
        self.flops += flops
        if report.applied:
            self.applied += 1
            values = {_key(name): loss for name, loss in report.losses.items()}
            for key, value in {**values, "grad_norm": report.grad_norm}.items():
                self.sums[key] = self.sums.get(key, 0.0) + value

    def take(self) -> dict[str, float]:
        """The values of one line; counting starts again."""
        seconds = time.perf_counter() - self.since
        row: dict[str, float] = {key: total / self.applied for key, total in self.sums.items()}
        row |= {
            "skipped": self.steps - self.applied,
            "batch": self.images / self.steps,
            "images_per_s": self.timed / seconds,
            "data_wait": self.waited / seconds,
            "memory_gb": peak_memory() / 1e9,
        }
        if self.peak is not None:
            row["mfu"] = self.flops / seconds / self.peak
        self.steps = self.applied = self.images = self.timed = 0
        self.sums, self.flops, self.waited = {}, 0.0, 0.0
        self.since = time.perf_counter()
        return row

    def notes(self) -> dict[str, float]:
        """What a line has collected so far, for a checkpoint."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        sums = {f"sum of {key}": total for key, total in self.sums.items()}
        return {f"{_WINDOW}{key}": value for key, value in {**counts, **sums}.items()}

    def load(self, notes: Mapping[str, float]) -> None:
        """Go on with the line of which `notes` were taken."""
        for name in _COUNTS:
            setattr(self, name, int(notes.get(f"{_WINDOW}{name}", 0)))
        prefix = f"{_WINDOW}sum of "
        self.sums = {k.removeprefix(prefix): v for k, v in notes.items() if k.startswith(prefix)}


def _key(name: str) -> str:
    return "loss" if name == "total" else f"loss_{name}"
