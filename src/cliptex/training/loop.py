"""The training loop: resumable to the bit, stoppable by SIGTERM.

Nothing random is carried from step to step. Samples, crops, captions and dropout are functions
of the seed and the step, so weights, optimizer and a step number are the whole state, and a
run that was interrupted ends with the weights of one that was not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cliptex.console import say, track
from cliptex.data.joined import Batch
from cliptex.data.loader import load_batches
from cliptex.training.checkpoint import CHECKPOINTS, FINAL, load_notes, load_state, save_state
from cliptex.training.config import TrainConfig
from cliptex.training.export import save_final
from cliptex.training.optimizer import lr_at, set_lr
from cliptex.training.runfolder import RunLog, open_run
from cliptex.training.setup import Run, prepare
from cliptex.training.step import StepReport, train_step

_DROPOUT = 3  # purpose of the generator of a step, beside those of cliptex.data


class TrainingInterrupted(SystemExit):
    """SIGTERM came: `checkpoint` is saved, and the same call goes on from there.

    As a SystemExit it ends an unsuspecting program quietly with the signal's customary status.
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.checkpoint = checkpoint


def train(config: TrainConfig, out: Path) -> Path:
    """Train, or go on with the run in `out`, and return `out`/checkpoints/final.

    The final folder holds the CLIP (for `load_clip`) and, where there were tasks, the pyramid
    and the heads. Nothing is done where it exists already.

    Raises:
        ValueError: data, labels, configuration or the run in `out` do not belong together, or
            `bad_steps` losses in a row were not finite.
        TrainingInterrupted: SIGTERM was received; a checkpoint is saved.
    """
    open_run(config, out)
    final = out / CHECKPOINTS / FINAL
    if final.exists():
        say(f"{final} exists: nothing to train")
        return final
    with torch.random.fork_rng():
        run = prepare(config)
        start = load_state(out, run.model, run.optimizer) or 0
        if start:
            say(f"going on after step {start} of {run.steps}")
        _loop(run, out, start)
    return save_final(run.model, out)


def _loop(run: Run, out: Path, start: int) -> None:
    config = run.config
    log = RunLog(out, start, tensorboard=config.tensorboard)
    meter = _Meter()
    guard = _Guard(config.bad_steps, **load_notes(out))
    steps = range(start, run.steps)
    batches = load_batches(run.dataset, run.sampler, steps, workers=config.workers)
    run.model.train()
    try:
        with _stop_requested() as stop:
            for step in track(steps, label="train", total=run.steps, done=start):
                with meter.waiting():
                    batch = next(batches)
                lr = lr_at(config, step, run.steps)
                set_lr(run.optimizer, lr)
                torch.manual_seed(_step_seed(config.seed, step))
                report = train_step(run.model, run.optimizer, batch, run.tasks, config)
                guard.check(report, batch, step)
                meter.add(report, len(batch.captions))
                done = step + 1
                if done % config.log_every == 0 or done == run.steps:
                    scale = run.model.clip.scale.item()
                    log.write({"step": done, "lr": lr, "logit_scale": scale, **meter.take()})
                if stop.is_set():
                    raise TrainingInterrupted(_save(run, out, done, guard))
                if done % config.checkpoint_every == 0 and done < run.steps:
                    _save(run, out, done, guard)
    finally:
        batches.close()
        log.close()


def _save(run: Run, out: Path, step: int, guard: _Guard) -> Path:
    notes = {"skipped": guard.skipped, "in_row": guard.in_row}
    keep = run.config.keep_checkpoints
    return save_state(out, run.model, run.optimizer, step, keep=keep, notes=notes)


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.default_rng([seed, step, _DROPOUT]).integers(2**62))


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; only the main thread of a process can listen for it."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class _Guard:
    """Counts steps that were skipped because something was not finite, and ends hopeless runs."""

    limit: int
    skipped: int = 0
    in_row: int = 0

    def check(self, report: StepReport, batch: Batch, step: int) -> None:
        if report.applied:
            self.in_row = 0
            return
        self.skipped += 1
        self.in_row += 1
        say(f"step {step + 1} skipped: losses {report.losses}, gradient norm {report.grad_norm}")
        if self.in_row >= self.limit:
            names = ", ".join(batch.names[:8])
            raise ValueError(
                f"{self.in_row} steps in a row gave no finite loss and gradient, the last (step "
                f"{step + 1}) with {report.losses} on {names}, ...; look at these samples "
                "and their labels, or lower lr, or set clip_grad"
            )


@dataclass
class _Meter:
    """Means over the steps since the last line of the log, and where the time went."""

    reports: list[StepReport] = field(default_factory=list)
    images: int = 0
    waited: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.waited += time.perf_counter() - before

    def add(self, report: StepReport, images: int) -> None:
        self.reports.append(report)
        self.images += images

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
            "images_per_s": self.images / seconds,
            "data_wait": self.waited / seconds,
        }
        self.reports, self.images, self.waited = [], 0, 0.0
        self.since = time.perf_counter()
        return row


def _key(name: str) -> str:
    return "loss" if name == "total" else f"loss_{name}"
