"""From a data set to rows: train a bank, choose rates away from the test set, score it once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.models.encoder import FrozenEncoder
from cliptex.per_image import save_per_image
from cliptex.probes.bank import (
    first_score,
    fresh_members,
    keys_of,
    score_bank,
    state_file,
    train_bank,
)
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.bank_state import identity_of
from cliptex.probes.examples import Examples
from cliptex.probes.feature_store import FeatureStore, stored_source
from cliptex.probes.features import proven_frozen
from cliptex.probes.member import HeadKey, Member
from cliptex.probes.scores import Scorer
from cliptex.probes.select import Selection, best_index
from cliptex.probes.sources import BatchSource, LiveSource
from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How the model is called in the rows, and what is known about its weights."""

    model: str
    checkpoint: str = ""
    leak: bool = False


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Folders of a bank: `state` to go on from after a kill, `features` to read maps once.

    save_every: steps between two saved states.
    """

    state: Path | None = None
    save_every: int = 200
    features: FeatureStore | None = None


@dataclass(frozen=True, kw_only=True)
class HeadOutcome:
    """A chosen head with its rows and per-image values (as in `ProbeOutcome`)."""

    member: Member
    results: list[Result]
    per_image: dict[str, np.ndarray]
    selection: Selection | None

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row that has per-image values."""
        rows = [row for row in self.results if row.metric in self.per_image]
        return [save_per_image(folder, row, self.per_image[row.metric]) for row in rows]


def run_bank(
    encoder: FrozenEncoder,
    train: Examples,
    val: Examples | None,
    test: Examples,
    config: BankConfig,
    *,
    naming: Naming,
    storage: Storage | None = None,
) -> list[HeadOutcome]:
    """Train every head x rate x seed on `train`; one outcome per head and seed, on `test`.

    With several rates each (head, seed) chooses its own, on `val` or on a held-out part of train;
    `test` is read once, by the chosen heads. Raises FrozenEncoderChanged where the encoder is not
    what it was, ValueError where the sets do not fit together or every rate diverged.
    """
    for other in (test,) if val is None else (val, test):
        if other.task.identity != train.task.identity:
            raise ValueError(f"{other.name} and {train.name} do not have the same kind or classes")
    kept = storage or Storage()
    with (
        proven_frozen(encoder) as sha,
        source_for(encoder, train, config, kept.features, sha) as source,
    ):
        bank = _Bank(encoder, train, val, config, kept, source, sha, naming.model)
        chosen = bank.chosen()
        label = f"{naming.model}: {train.task.name} probes on {test.name}, test"
        members = [member for member, _ in chosen]
        scorers = score_bank(members, encoder, test, config, label=label)
    shared = {
        **config.protocol(),
        "loss": train.task.loss_name,
        "train_images": len(train),
        "evaluation": "whole picture squashed to the resolution, outputs at the truth's size",
        "encoder_sha256": sha,
        **source.protocol(),
    }
    return [
        _outcome(member, selection, scorer, test, shared, naming)
        for (member, selection), scorer in zip(chosen, scorers, strict=True)
    ]


def source_for(
    encoder: FrozenEncoder,
    train: Examples,
    config: BankConfig,
    store: FeatureStore | None,
    fingerprint: str,
) -> AbstractContextManager[BatchSource]:
    """Batches of `train` from the store, or live where there is none."""
    if store is None:
        return nullcontext(LiveSource(encoder, train, config))
    return stored_source(store, encoder, train, config, fingerprint=fingerprint)


@dataclass(frozen=True)
class _Bank:
    """One data set's bank on its way from fresh heads to chosen ones."""

    encoder: FrozenEncoder
    train: Examples
    val: Examples | None
    config: BankConfig
    storage: Storage
    source: BatchSource
    sha: str
    model: str

    def chosen(self) -> list[tuple[Member, Selection | None]]:
        """The trained head of each kind and seed, and how its rate was chosen."""
        rows = list(range(len(self.train)))
        if len(self.config.rates) == 1:
            members = self._trained(keys_of(self.config), rows, "all")
            return [(self._whole(member), None) for member in members]
        held: list[int] = []
        if self.val is None:
            rows, held = self._split()
        members = self._trained(keys_of(self.config), rows, "choice")
        selections = self._selected(members, held)
        if self.val is not None or not self.config.refit:
            return selections
        keys = [member.key for member, _ in selections]
        again = self._trained(keys, list(range(len(self.train))), "refit")
        return [(self._whole(m), s) for m, (_, s) in zip(again, selections, strict=True)]

    def _trained(self, keys: Sequence[HeadKey], rows: Sequence[int], phase: str) -> list[Member]:
        task = self.train.task
        members = fresh_members(keys, self.encoder, task, self.config)
        facts = {
            "config": self.config.model_dump(mode="json", exclude={"workers", "extract_batch"}),
            "encoder": self.sha,
            "train": [self.train.name, list(rows)],
            "keys": [key.name for key in keys],
            "features": self.source.protocol(),
        }
        every = self.storage.save_every
        state = state_file(self.storage.state, phase, identity_of(facts), every)
        label = f"{self.model}: {len(members)} {task.name} probes on {self.train.name}"
        train_bank(members, self.source, rows, task, self.config, label=label, state=state)
        return members

    def _split(self) -> tuple[list[int], list[int]]:
        """Rows to learn from and rows to choose on, by the data seed."""
        n = len(self.train)
        if n < 2:
            raise ValueError(f"{n} training images cannot be split for selection; pass `val`")
        count = min(n - 1, max(1, round(self.config.holdout * n)))
        order = np.random.default_rng([self.config.data_seed, n]).permutation(n).tolist()
        return sorted(order[count:]), sorted(order[:count])

    def _selected(
        self, members: Sequence[Member], held: Sequence[int]
    ) -> list[tuple[Member, Selection | None]]:
        examples, rows = (self.train, held) if self.val is None else (self.val, None)
        on = "the validation split" if rows is None else f"{len(held)} held-out images of train"
        label = f"{self.model}: {examples.task.name} probes, choice of the learning rate"
        scorers = score_bank(members, self.encoder, examples, self.config, rows=rows, label=label)
        found: list[tuple[Member, Selection | None]] = []
        for head in self.config.heads:
            for seed in self.config.seeds:
                same = [
                    (member, scorer)
                    for member, scorer in zip(members, scorers, strict=True)
                    if (member.key.head, member.key.seed) == (head, seed)
                ]
                firsts = [first_score(member, scorer) for member, scorer in same]
                best = best_index([score for _, score in firsts])
                pairs = zip(same, firsts, strict=True)
                scores = {member.key.lr: score.value for (member, _), (_, score) in pairs}
                member = self._whole(same[best][0])
                found.append((member, Selection(member.key.lr, scores, firsts[best][0], on)))
        return found

    @staticmethod
    def _whole(member: Member) -> Member:
        if member.diverged:
            raise ValueError(
                f"{member.key.name}: its loss was not finite; set a smaller learning rate (--lr)"
            )
        return member


def _outcome(
    member: Member,
    selection: Selection | None,
    scorer: Scorer,
    test: Examples,
    shared: dict[str, object],
    naming: Naming,
) -> HeadOutcome:
    chosen = {"lr": member.key.lr, "selection": "none: one rate"}
    protocol = {
        **shared,
        "head": member.key.head,
        **(chosen if selection is None else selection.protocol()),
        **scorer.protocol(),
    }
    rows = [
        Result(
            model=naming.model,
            checkpoint=naming.checkpoint,
            task=test.task.name,
            dataset=test.name,
            probe=member.key.head,
            metric=name,
            value=score.value,
            better=score.better,
            n=len(test),
            seed=member.key.seed,
            protocol=protocol,
            leak=naming.leak,
        )
        for name, score in scorer.metrics().items()
    ]
    return HeadOutcome(
        member=member, results=rows, per_image=scorer.per_image(), selection=selection
    )
