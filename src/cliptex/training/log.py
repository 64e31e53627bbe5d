"""What a run says of its steps: counters that a checkpoint keeps, means, and log.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cliptex import machine
from cliptex.files import parse_json, write_atomic
from cliptex.training.optimizer import LossScale
from cliptex.training.step import StepReport

LOG = "log.jsonl"
SMOOTHING = 0.98  # of the running mean of the loss: about the last fifty steps
_WINDOW = "since the last line: "
_COUNTS = ("steps", "applied", "images")


@dataclass
class Progress:
    """Counters of a run: what `state.json` holds beside the step.

    skipped, in_row: steps left out because something was not finite, in all and just now.
    loss: running mean of the total loss; NaN before the first step.
    """

    scale: LossScale
    skipped: int = 0
    in_row: int = 0
    loss: float = field(default=math.nan)

    def add(self, total: float, applied: bool) -> None:
        """Count a step that had the loss `total`."""
        if applied:
            self.in_row = 0
            known = not math.isnan(self.loss)
            self.loss = SMOOTHING * self.loss + (1 - SMOOTHING) * total if known else total
            return
        self.skipped += 1
        # An overflow of float16 that a smaller scale may cure is no sign of a hopeless run.
        self.in_row += not (self.scale.enabled and self.scale.value > 1)

    def notes(self) -> dict[str, float]:
        """All as numbers for a checkpoint."""
        notes = {"skipped": self.skipped, "in_row": self.in_row}
        scale = {"loss_scale": self.scale.value, "good": self.scale.good}
        loss = {} if math.isnan(self.loss) else {"loss": self.loss}
        return {**notes, **scale, **loss}

    def load(self, notes: Mapping[str, float]) -> None:
        """Take what `notes` returned, in part or whole."""
        self.skipped = int(notes.get("skipped", self.skipped))
        self.in_row = int(notes.get("in_row", self.in_row))
        self.loss = notes.get("loss", self.loss)
        if self.scale.enabled:
            self.scale.value = notes.get("loss_scale", self.scale.value)
            self.scale.good = int(notes.get("good", self.scale.good))


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


def peak_memory() -> int:
    """The most bytes in use so far: of the GPU's allocator, else resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return machine.peak_memory()


class RunLog:
    """log.jsonl and, if asked for, TensorBoard events; lines after `start` steps are dropped.

    A killed run may have logged steps beyond its last checkpoint; those are done again.
    """

    def __init__(self, out: Path, start: int, *, tensorboard: bool) -> None:
        self._path = out / LOG
        self._cut(start)
        self._file = self._path.open("a", encoding="utf-8")
        self._events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # a second to import

            self._events = SummaryWriter(str(out), purge_step=start + 1)

    def _cut(self, start: int) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= start]
        write_atomic(self._path, "".join(f"{line}\n" for line in kept).encode())

    def write(self, row: Mapping[str, float]) -> None:
        """Append one line; `row` has a "step"."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _step_of(line: str) -> float:
    try:
        return parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half written
        return float("inf")
