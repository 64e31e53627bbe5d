"""Training a bank and choosing each head's learning rate, away from the test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.models.encoder import FrozenEncoder
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
from cliptex.probes.feature_store import FeatureStore
from cliptex.probes.member import HeadKey, Member
from cliptex.probes.processes import ALL, Share, pairs_of
from cliptex.probes.select import Selection, best_index, held_count
from cliptex.probes.sources import BatchSource

UNTRAINED = ("recipe", "protocols", "things", "holdout", "refit", "workers", "extract_batch")
"""Fields that change no head's training on given pictures: a state outlives changes of them."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Folders of a bank: `state` to go on from after a kill, `features` to read maps once.

    save_every: steps between two saved states.
    """

    state: Path | None = None
    save_every: int = 200
    features: FeatureStore | None = None


@dataclass(frozen=True)
class Bank:
    """One data set's bank on its way from fresh heads to chosen ones."""

    encoder: FrozenEncoder
    train: Examples
    val: Examples | None
    config: BankConfig
    storage: Storage
    source: BatchSource
    sha: str
    model: str
    share: Share = ALL

    def chosen(self) -> list[tuple[Member, Selection | None]]:
        """The trained head of each kind and seed, and how its rate was chosen.

        One that diverged is among them, where all of its rates or its refit did.
        """
        rows = list(range(len(self.train)))
        keys = keys_of(self.config, self.share)
        if len(self.config.rates) == 1:
            return [(member, None) for member in self._trained(keys, rows, "all")]
        held: list[int] = []
        if self.val is None:
            rows, held = self._split()
        selections = self._selected(self._trained(keys, rows, "choice"), held)
        sound = [member.key for member, _ in selections if not member.diverged]
        if self.val is not None or not self.config.refit or not sound:
            return selections
        again = self._trained(sound, list(range(len(self.train))), "refit")
        refitted = {member.key: member for member in again}
        return [(refitted.get(member.key, member), s) for member, s in selections]

    def _trained(self, keys: Sequence[HeadKey], rows: Sequence[int], phase: str) -> list[Member]:
        task, config = self.train.task, self.config
        members = fresh_members(keys, self.encoder, task, config)
        state = None
        if self.storage.state is not None:
            identity = identity_of(self._facts(keys, rows))
            folder = self.storage.state
            if self.share.size > 1:
                folder = folder / f"process{self.share.rank}of{self.share.size}"
            state = state_file(folder, phase, identity, self.storage.save_every)
        label = f"{self.model}: {len(members)} {task.name} probes on {self.train.name}"
        train_bank(members, self.source, rows, task, config, label=label, state=state)
        return members

    def _facts(self, keys: Sequence[HeadKey], rows: Sequence[int]) -> dict[str, object]:
        """Whatever the trained heads depend on."""
        return {
            "config": self.config.model_dump(mode="json", exclude=set(UNTRAINED)),
            "encoder": self.sha,
            "train": [self.train.name, self.train.digest(), list(rows)],
            "keys": [key.name for key in keys],
            "features": self.source.protocol(),
        }

    def _split(self) -> tuple[list[int], list[int]]:
        """Rows to learn from and rows to choose on, by the data seed."""
        n = len(self.train)
        if n < 2:
            raise ValueError(
                f"{n} training images cannot be split for selection: name a validation split "
                "(`val`, --val-split)"
            )
        count = held_count(n, self.config.holdout)
        order = np.random.default_rng([self.config.data_seed, n]).permutation(n).tolist()
        return sorted(order[count:]), sorted(order[:count])

    def _selected(
        self, members: Sequence[Member], held: Sequence[int]
    ) -> list[tuple[Member, Selection | None]]:
        examples, rows = (self.train, held) if self.val is None else (self.val, None)
        on = "the validation split" if rows is None else f"{len(held)} held-out images of train"
        label = f"{self.model}: {examples.task.name} probes, choice of the learning rate"
        panels = score_bank(
            members, self.encoder, examples, self.config, rows=rows, protocols=1, label=label
        )
        scored = [(m, *first_score(m, p)) for m, p in zip(members, panels, strict=True)]
        found: list[tuple[Member, Selection | None]] = []
        for pair in pairs_of(self.config, self.share):
            same = [one for one in scored if (one[0].key.head, one[0].key.seed) == pair]
            best, metric, _ = same[best_index([score for _, _, score in same])]
            scores = {member.key.lr: score.value for member, _, score in same}
            found.append((best, Selection(best.key.lr, scores, metric, on)))
        return found
