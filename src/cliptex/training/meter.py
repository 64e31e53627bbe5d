"""What the log says about the steps since its last line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cliptex.training.memory import peak_memory
from cliptex.training.step import StepReport


@dataclass
class Meter:
    """Means over the steps since the last line of the log, and where the time went.

    peak: FLOPs a second of all devices together; None leaves `mfu` out.
    """

    peak: float | None = None
    reports: list[StepReport] = field(default_factory=list)
    images: int = 0
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
        self.reports.append(report)
        self.images += images
        self.flops += flops

    def take(self) -> dict[str, float]:
        """The values of one line; counting starts again."""
        seconds = time.perf_counter() - self.since
        applied = [report for report in self.reports if report.applied]
        row: dict[str, float] = {}
        if applied:
            names = applied[0].losses
            row = {_key(n): float(np.mean([r.losses[n] for r in applied])) for n in names}
            row["grad_norm"] = float(np.mean([report.grad_norm for report in applied]))
        row |= {
            "skipped": len(self.reports) - len(applied),
            "batch": self.images / len(self.reports),
            "images_per_s": self.images / seconds,
            "data_wait": self.waited / seconds,
            "memory_gb": peak_memory() / 1e9,
        }
        if self.peak is not None:
            row["mfu"] = self.flops / seconds / self.peak
        self.reports, self.images, self.flops, self.waited = [], 0, 0.0, 0.0
        self.since = time.perf_counter()
        return row


def _key(name: str) -> str:
    return "loss" if name == "total" else f"loss_{name}"
