"""The trainer of all probes: from a data set to rows.

Heads learn on a frozen encoder, a learning rate is chosen away from the test set, and the test set
is read once, by the chosen heads. What differs between forms of probe is a `Method`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed

from cliptex.console import track
from cliptex.datasets.protocol import DenseDataset
from cliptex.metrics.scorers import Score, Scorer
from cliptex.models.device import products
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.boxes import DetectionProbe
from cliptex.probes.config import DetectionConfig, FastConfig, GroupConfig, ProbeConfig
from cliptex.probes.features import proven_frozen
from cliptex.probes.heads import ProbeGroup
from cliptex.probes.linear import FastProbe
from cliptex.probes.method import (
    ALL,
    Batches,
    Head,
    HeadKey,
    Learner,
    Method,
    Share,
    Split,
    StateFile,
    Storage,
    identity_of,
)
from cliptex.probes.outcome import (
    Naming,
    ProbeOutcome,
    Selection,
    Tested,
    best_index,
    fault_of,
    rows_of,
)
from cliptex.probes.task import Probed, refuse_unlike

METHODS: dict[type[ProbeConfig], type[Method]] = {
    FastConfig: FastProbe,
    GroupConfig: ProbeGroup,
    DetectionConfig: DetectionProbe,
}


def run_probe(
    encoder: FrozenEncoder,
    train: Probed,
    val: Probed | None,
    test: Probed,
    config: ProbeConfig,
    *,
    naming: Naming,
    storage: Storage | None = None,
    share: Share = ALL,
    truths: Mapping[str, DenseDataset] | None = None,
) -> list[ProbeOutcome]:
    """Train every head x rate x seed on `train`; one outcome per head and seed, on `test`.

    Of several rates one is chosen on `val`, or on a held-out part of train; `test` is read once, at
    the end, by the chosen heads. `truths` hold, by protocol, sets of test's pictures with other
    ground truths. `share` is what this process does of it. A head whose loss or predictions are
    not finite has an outcome with an error and without rows.

    Raises FrozenEncoderChanged where the encoder is not what it was, ValueError where the sets are
    empty, do not fit together or the configuration, or hold nothing to learn from.
    """
    kind = METHODS[type(config)]
    sets = [kind.split_of(one, config) for one in (train, *(() if val is None else (val,)))]
    tested = kind.split_of(test, config, truths)
    for one in (*sets[1:], tested):
        refuse_unlike(sets[0].identity, one.identity, (sets[0].place, one.place))
    sets[0].check()
    pairs = share.of((name, seed) for name in config.names for seed in config.seeds)
    if not pairs:
        return []
    keys = [HeadKey(name, rate, seed) for name, seed in pairs for rate in config.rates]
    storage = _of_process(storage or Storage(), config, share)
    label = f"{naming.model}: {tested.task}"
    with proven_frozen(encoder) as sha, products(config.head_precision):
        method = kind(encoder, sets[0], config, storage=storage, fingerprint=sha, label=label)
        choice = Choice(method, sets[1] if val is not None else None)
        chosen = [one for keys in method.rounds(keys) for one in choice.chosen(keys)]
        heads = [head for head, _, _ in chosen]
        panels = score(method, heads, tested, label=f"{label} probes on {test.name}, test")
    shared = {**encoder.protocol(config.resolution), "encoder_sha256": sha}
    return [
        _outcome(method, *one, tested, scorers, naming, shared)
        for one, (_, scorers) in zip(chosen, (p for panel in panels for p in panel), strict=True)
    ]


def _of_process(storage: Storage, config: ProbeConfig, share: Share) -> Storage:
    """With a folder of its own for each process, and each detector."""
    folder = storage.state
    if folder is not None and isinstance(config, DetectionConfig):
        folder = folder / config.name
    if folder is not None and share.size > 1:
        folder = folder / f"process{share.rank}of{share.size}"
    return replace(storage, state=folder)


def train_heads(
    learners: Sequence[Learner],
    batches: Batches,
    config: ProbeConfig,
    *,
    label: str,
    state: StateFile | None = None,
) -> list[Head]:
    """Train all `learners` on the same batches, from `state` on where there is one.

    ValueError where the warm-up is longer than the training.
    """
    steps = batches.steps
    config.schedule.check(steps)
    start = 0 if state is None else state.load(learners)
    shown = track(batches.stream(start), label=label, total=steps, done=start)
    for step, batch in enumerate(shown, start=start):
        factor = config.schedule.factor(step, steps, batches.steps_per_epoch)
        for learner in learners:
            learner.learn(batch, factor, step)
        if state is not None:
            state.save_if_due(learners, step + 1, steps)
    return [learner.finish() for learner in learners]


Panel = list[tuple[HeadKey, list[Scorer]]]
"""Of each key of a head, its scorers: one per protocol."""


@torch.no_grad()
def score(
    method: Method,
    heads: Sequence[Head],
    split: Split,
    *,
    rows: Sequence[int] | None = None,
    protocols: int | None = None,
    label: str,
) -> list[Panel]:
    """Scorers of all `heads`, filled with `rows` of the split (None: all), each picture read once.

    One scorer per protocol, or of the first `protocols`; those of a head that diverged stay empty.
    """
    panels: list[Panel] = [
        [(key, split.scorers(rows, protocols)) for key in head.keys] for head in heads
    ]
    for features, answers in method.read(split, rows, label):
        for head, panel in zip(heads, panels, strict=True):
            if head.diverged:
                continue
            for out, (_, scorers) in zip(head.predict(features), panel, strict=True):
                for one, answer in zip(out, answers, strict=True):
                    method.add(head, one, answer, scorers)
    return panels


Chosen = tuple[Head, HeadKey, Selection | None]
Scored = tuple[Head, HeadKey, str, Score]
"""A head, which one, the metric that chooses ("" of a head that diverged), and its value."""


@dataclass(frozen=True)
class Choice:
    """The way from fresh heads to chosen ones, away from the test set."""

    method: Method
    val: Any | None

    def chosen(self, keys: Sequence[HeadKey]) -> list[Chosen]:
        """The trained head of each kind and seed, and how its rate was chosen.

        One that diverged is among them, where all of its rates or its refit did.
        """
        method, config = self.method, self.method.config
        rows, held = method.rows(), None
        if not config.chooses:
            return [(head, head.keys[0], None) for head in self._trained(keys, rows, "all")]
        everything = rows
        if self.val is None:
            if len(rows) < 2:
                raise ValueError(
                    f"{len(rows)} pictures of {method.train.name} cannot be split for the choice "
                    "of a learning rate: name a validation split (`val_split`)"
                )
            rows, held = method.hold_out(rows, keys)
        selected = self._selected(self._trained(keys, rows, "choice"), held)
        sound = [key for head, key, _ in selected if not head.diverged]
        if self.val is not None or not config.refit or not sound:
            return selected
        again = self._trained(sound, everything, "refit")
        refitted = {key: head for head in again for key in head.keys}
        return [(refitted.get(key, head), key, found) for head, key, found in selected]

    def _trained(self, keys: Sequence[HeadKey], rows: Sequence[int], phase: str) -> list[Head]:
        method, folder = self.method, self.method.storage.state
        learners, batches = method.begin(keys, rows)
        state = None
        if folder is not None and (facts := method.state(keys, rows)) is not None:
            path = folder / f"{phase}.safetensors"
            state = StateFile(path, identity_of(facts), method.config.save_every)
        label = f"{method.label}, {len(keys)} heads on {method.train.name}"
        return train_heads(learners, batches, method.config, label=label, state=state)

    def _selected(self, heads: Sequence[Head], held: Sequence[int] | None) -> list[Chosen]:
        """Of each kind of head the best rate: of each seed its own, or one for all seeds."""
        method = self.method
        split = method.train if self.val is None else self.val
        on = "the validation split" if held is None else f"{len(held)} held-out images of train"
        label = f"{method.label}, choice of the learning rate"
        panels = score(method, heads, split, rows=held, protocols=1, label=label)
        scored: list[Scored] = []
        for head, panel in zip(heads, panels, strict=True):
            for key, scorers in panel:
                metric, found = "", Score(float("nan"), "higher")
                if not head.diverged:
                    metric, found = next(iter(scorers[0].metrics().items()))
                scored.append((head, key, metric, found))
        if method.mean_over_seeds:
            return _best(scored, f"{on}, mean over seeds")
        pairs = dict.fromkeys((key.head, key.seed) for _, key, *_ in scored)
        same = [[one for one in scored if (one[1].head, one[1].seed) == pair] for pair in pairs]
        return [one for group in same for one in _best(group, on)]


def _best(scored: Sequence[Scored], on: str) -> list[Chosen]:
    """The heads of the rate with the best mean; only the rates at which the fewest heads diverged
    are compared, by the other heads."""
    rates = list(dict.fromkeys(key.lr for _, key, *_ in scored))
    lost = {rate: sum(h.diverged for h, k, *_ in scored if k.lr == rate) for rate in rates}
    means: list[Score] = []
    for rate in rates:
        sound = [s for h, k, _, s in scored if k.lr == rate and not h.diverged]
        if not sound or lost[rate] > min(lost.values()):
            means.append(Score(float("nan"), "higher"))
        else:
            means.append(Score(float(np.mean([s.value for s in sound])), sound[0].better))
    best = rates[best_index(means)]
    scores = {rate: mean.value for rate, mean in zip(rates, means, strict=True)}
    metric = next((metric for _, key, metric, _ in scored if metric and key.lr == best), "")
    selection = Selection(best, scores, metric, on)
    return [(head.pick(key), key, selection) for head, key, *_ in scored if key.lr == best]


def _outcome(
    method: Method,
    head: Head,
    key: HeadKey,
    selection: Selection | None,
    test: Split,
    scorers: Sequence[Scorer],
    naming: Naming,
    shared: Mapping[str, object],
) -> ProbeOutcome:
    tested = Tested(task=test.task, dataset=test.name, probe=key.head, n=len(test), seed=key.seed)
    error = fault_of(scorers, tested, naming)
    if head.diverged:
        rates = [key.lr] if selection is None else sorted(selection.scores)
        error = (
            f"{naming.model}: {key.head}, seed {key.seed}, on {test.name}: its loss was not finite "
            f"at {', '.join(f'{rate:g}' for rate in rates)}; set a smaller learning rate "
            "(`learning_rates`)"
        )
    chosen: dict[str, object] = {"lr": key.lr, "selection": "none: one rate"}
    if selection is not None:
        chosen = selection.protocol()
    protocol = {**method.protocol(key), **shared, **chosen}
    rows, per_image = ([], {}) if error else rows_of(scorers, tested, naming, protocol)
    return ProbeOutcome(
        key=key,
        head=head,
        config=method.config,
        results=rows,
        per_image=per_image,
        task=method.probe,
        selection=selection,
        error=error,
    )


def wait_for_others() -> None:
    """Under torchrun, until every process is here: when one of them fails, it ends the others."""
    if not distributed.is_torchelastic_launched():
        return
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()
    distributed.destroy_process_group()
