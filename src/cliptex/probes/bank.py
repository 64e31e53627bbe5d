"""All heads x learning rates x seeds of one data set, trained together on one encoder pass.

Batches come from the data seed alone; every head has its own optimizer and its own randomness, so
that it learns exactly what it would learn alone (`tests/probes/test_bank.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from cliptex.console import track
from cliptex.models.encoder import FrozenEncoder
from cliptex.models.heads import upsample
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.bank_state import StateFile
from cliptex.probes.examples import BankTask, Examples
from cliptex.probes.features import encode
from cliptex.probes.member import HeadKey, Member
from cliptex.probes.processes import ALL, Share, pairs_of
from cliptex.probes.scores import Score, Scorer
from cliptex.probes.sources import BatchSource, batch_plan, steps_of


def keys_of(config: BankConfig, share: Share = ALL) -> list[HeadKey]:
    """Every head of the bank, or of a share of it."""
    pairs = pairs_of(config, share)
    return [HeadKey(head, rate, seed) for head, seed in pairs for rate in config.rates]


def fresh_members(
    keys: Iterable[HeadKey], encoder: FrozenEncoder, task: BankTask, config: BankConfig
) -> list[Member]:
    """Untrained heads on what the encoder gives for a blank picture."""
    blank = np.zeros((config.resolution, config.resolution, 3), np.uint8)
    channels = encode(encoder, [blank], dense=task.dense, precision=config.precision).shape[1]
    members = [Member(key, channels, task, config, stride=encoder.stride) for key in keys]
    for member in members:
        member.module.to(encoder.device)
    return members


def train_bank(
    members: Sequence[Member],
    source: BatchSource,
    rows: Sequence[int],
    task: BankTask,
    config: BankConfig,
    *,
    label: str,
    state: StateFile | None = None,
) -> None:
    """Train all `members` in place on `rows` of the source, from `state` on where there is one."""
    steps, per_epoch = steps_of(len(rows), config)
    config.schedule.check(steps)
    start = 0 if state is None else state.load(members)
    batches = source.stream(batch_plan(rows, config, start))
    shown = track(batches, label=label, total=steps, done=start)
    for step, batch in enumerate(shown, start=start):
        factor = config.schedule.factor(step, steps, per_epoch)
        for member in members:
            member.learn(batch, task, factor, step)
        if state is not None:
            state.save_if_due(members, step + 1, steps)


def score_bank(
    members: Sequence[Member],
    encoder: FrozenEncoder,
    examples: Examples,
    config: BankConfig,
    *,
    rows: Sequence[int] | None = None,
    protocols: int | None = None,
    label: str,
) -> list[list[Scorer]]:
    """Each head's scorers, filled with `rows` of `examples` (all of them by default).

    One per protocol, or of the first `protocols` only; those of a head that diverged stay empty.
    Pictures are squashed to the resolution and encoded once for all heads; outputs are
    interpolated to the ground truth's size, one head at a time.
    """
    task = examples.task
    panels = [[make() for make in task.scorers[:protocols]] for _ in members]
    chosen = list(range(len(examples)) if rows is None else rows)
    for start in track(range(0, len(chosen), config.extract_batch), label=label):
        pairs = [examples.test(i) for i in chosen[start : start + config.extract_batch]]
        images = [image for image, _ in pairs]
        maps = encode(encoder, images, dense=task.dense, precision=config.precision)
        for member, scorers in zip(members, panels, strict=True):
            if not member.diverged:
                _add(member.predict(maps), [truths for _, truths in pairs], scorers, config)
    return panels


def _add(
    out: Tensor,
    answers: Sequence[Sequence[np.ndarray]],
    scorers: Sequence[Scorer],
    config: BankConfig,
) -> None:
    for raw, truths in zip(out, answers, strict=True):
        size = (truths[0].shape[0], truths[0].shape[1])
        full = upsample(raw[None], size, align_corners=config.align_corners)[0]  # (K, H, W)
        for scorer, truth in zip(scorers, truths, strict=False):
            scorer.add(full, truth)


def first_score(member: Member, scorers: Sequence[Scorer]) -> tuple[str, Score]:
    """The metric that selects, and its value; NaN for a head that diverged."""
    if member.diverged:
        return "", Score(math.nan, "higher")
    return next(iter(scorers[0].metrics().items()))


def state_file(folder: Path | None, phase: str, identity: str, every: int) -> StateFile | None:
    """Where one phase of a bank saves itself; None where nothing is to be saved."""
    return None if folder is None else StateFile(folder / f"{phase}.safetensors", identity, every)
