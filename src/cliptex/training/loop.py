"""The training loop: resumable to the bit, stoppable by SIGTERM, on one rank or many.

Nothing random is carried from step to step. Samples, crops, captions and dropout are functions
of the seed and the step, so weights, optimizer, a step number and a few counters are the whole
state, and a run that was interrupted ends with the weights of one that was not.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from cliptex.console import say, track
from cliptex.data.joined import Batch, load_batches
from cliptex.machine import keep_freed_memory
from cliptex.models.config import Provenance, write_provenance
from cliptex.training.checkpoint import (
    CHECKPOINTS,
    FINAL,
    Saved,
    load_state,
    save_final,
    save_state,
)
from cliptex.training.config import TrainConfig, of_all_ranks
from cliptex.training.distributed import World, join_world
from cliptex.training.log import Meter, Progress, RunLog
from cliptex.training.network import range_augment_of
from cliptex.training.optimizer import lr_at, set_lr
from cliptex.training.runfolder import check_run, hold_run, record_run
from cliptex.training.setup import Run, device_peak, prepare, provenance_of
from cliptex.training.step import Agreed, StepReport, agree, find_nonfinite_samples, train_step

SHOWN = 20  # names of samples in an error
_DROPOUT = 3  # purpose of the generator of a step, beside those of cliptex.data


class TrainingInterrupted(SystemExit):
    """SIGTERM came: `checkpoint` is saved, and the same call goes on from there.

    As a SystemExit it ends an unsuspecting program quietly with status 0: nothing went wrong.
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(0)
        self.checkpoint = checkpoint


def train(config: TrainConfig, out: Path, device: str = "auto") -> Path:
    """Train, or go on with the run in `out`, and return `out`/checkpoints/final.

    The final folder holds the CLIP (for `load_clip`) and, where there were tasks, the pyramid
    and the heads; with `ema`, `final-ema` beside it holds the averages. Nothing is done where it
    exists already. Under torchrun all ranks call this and share each global batch. `device` is
    where it computes, see `pick_device`.

    Raises:
        ValueError: data, labels, configuration or the run in `out` do not belong together, or
            another training is at work there (in either case nothing was written), or `bad_steps`
            losses in a row were not finite.
        TrainingInterrupted: SIGTERM was received; a checkpoint is saved.
    """
    with join_world(device) as world:
        whole = of_all_ranks(config, world.size)
        check_run(whole, out)
        if _finished(out, world):
            return out / CHECKPOINTS / FINAL
        if world.device.type == "cpu":
            keep_freed_memory()
        with torch.random.fork_rng():
            run = prepare(config, world)
            provenance = provenance_of(run)
            with hold_run(out, world):  # nothing is written before, and all checks are done
                # While this one was getting ready, another may have run.
                check_run(whole, out, tell=world.main)
                if not _finished(out, world):
                    _train(run, out, provenance)
    return out / CHECKPOINTS / FINAL


def _finished(out: Path, world: World) -> bool:
    final = out / CHECKPOINTS / FINAL
    if found := final.exists():
        _say(world, f"{final} exists: nothing to train")
    return found


def _train(run: Run, out: Path, provenance: Provenance) -> None:
    """Train from the last checkpoint in `out` on, or from the start, to the end."""
    world = run.world
    saved = load_state(out, run.model, run.optimizer, run.ema) or Saved(0, {})
    if saved.step:
        _say(world, f"going on after step {saved.step} of {run.steps}")
    record_run(run.config, out, world)
    if world.main:
        write_provenance(out, provenance)
    _loop(run, out, saved)
    save_final(run.model, out, run.ema, provenance)


def _say(world: World, text: str) -> None:
    if world.main:
        say(text)


def _loop(run: Run, out: Path, saved: Saved) -> None:
    config, world, start = run.config, run.world, saved.step
    progress = Progress(run.scale)
    progress.load(saved.notes)
    log = RunLog(out, start, tensorboard=config.tensorboard) if world.main else None
    meter = Meter(device_peak(config, world.device) * world.size)
    meter.load(saved.notes)
    steps = range(start, run.steps)
    share = {"workers": config.workers, "rank": world.rank, "world": world.size}
    batches = load_batches(run.dataset, run.sampler, steps, **share)
    run.engine.train()
    try:
        with _stop_requested() as stop:
            for step in _shown(world, steps, run.steps):
                with meter.waiting():
                    batch = next(batches)
                lr, agreed, report = _step(run, batch, step, stop.is_set())
                progress.add(report.losses["total"], report.applied)
                if not report.applied:
                    _skipped(run, batch, agreed, report, progress, step)
                images, (height, width) = sum(agreed.rows), batch.images.shape[-2:]
                meter.add(report, images, images * run.flops.per_image((height, width)))
                done = step + 1
                if done % config.log_every == 0 or done == run.steps:
                    scale = run.model.clip.scale.item()
                    row = {"step": done, "lr": lr, "logit_scale": scale, **meter.take()}
                    if log is not None:
                        log.write(row)
                notes = {**progress.notes(), **meter.notes()}
                if agreed.stop or (world.size == 1 and stop.is_set()):
                    raise TrainingInterrupted(_save(run, out, done, notes))
                if done % config.checkpoint_every == 0 and done < run.steps:
                    _save(run, out, done, notes)
    finally:
        batches.close()
        if log is not None:
            log.close()


def _step(run: Run, batch: Batch, step: int, stop: bool) -> tuple[float, Agreed, StepReport]:
    """One step of the run on this rank's share of the batch; its learning rate comes first."""
    agreed = agree(run.world, batch, run.config.accumulate, stop)
    lr = lr_at(run.config, step, run.steps)
    set_lr(run.optimizer, lr)
    if (augment := range_augment_of(run.model)) is not None:
        augment.set_progress(step, run.steps)
    torch.manual_seed(_step_seed(run.config.seed, step, run.world.rank))
    return lr, agreed, train_step(run, batch, agreed)


def _shown(world: World, steps: range, total: int) -> Iterator[int]:
    if not world.main:
        return iter(steps)
    return track(steps, label="train", total=total, done=steps.start)


def _save(run: Run, out: Path, step: int, notes: Mapping[str, float]) -> Path:
    return save_state(
        out,
        run.model,
        run.optimizer,
        step,
        keep=run.config.keep_checkpoints,
        keep_best=run.config.keep_best,
        notes=notes,
        ema=run.ema,
    )


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.default_rng([seed, step, _DROPOUT, rank]).integers(2**62))


def _skipped(
    run: Run, batch: Batch, agreed: Agreed, report: StepReport, progress: Progress, step: int
) -> None:
    """Say that a step was skipped; ValueError, on all ranks alike, where too many were."""
    _say(
        run.world,
        f"step {step + 1} skipped: losses {report.losses}, gradient norm {report.grad_norm}",
    )
    if progress.in_row >= run.config.bad_steps:
        torch.manual_seed(_step_seed(run.config.seed, step, run.world.rank))
        found = find_nonfinite_samples(run, batch, agreed, step)
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        names = ", ".join(found[:SHOWN]) + more
        raise ValueError(
            f"{progress.in_row} steps in a row had a loss or gradient that is not finite, the last "
            f"(step {step + 1}) with {report.losses} on {names}; check these samples and their "
            "labels, lower `lr`, or set `clip_grad`"
        )


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
