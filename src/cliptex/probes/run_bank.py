"""From a data set to rows: train a bank, choose rates away from the test set, score it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliptex.models.device import products
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank import score_bank
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.choice import Bank, Storage
from cliptex.probes.examples import Examples
from cliptex.probes.feature_store import FeatureStore, StoredSource
from cliptex.probes.features import proven_frozen
from cliptex.probes.items import refuse_unlike
from cliptex.probes.member import Member
from cliptex.probes.processes import ALL, Share, pairs_of
from cliptex.probes.scores import (
    Naming,
    Scorer,
    Tested,
    fault_of,
    rows_of,
    save_rows_per_image,
)
from cliptex.probes.select import Selection
from cliptex.probes.sources import BatchSource, LiveSource
from cliptex.results import Result

__all__ = ["HeadOutcome", "Naming", "Share", "Storage", "run_bank", "source_for"]


@dataclass(frozen=True, kw_only=True)
class HeadOutcome:
    """A chosen head with its rows and per-image values (as in `ProbeOutcome`).

    error: why there are none, for a head that diverged at every rate or whose predictions are not
        finite; "" otherwise.
    """

    member: Member
    results: list[Result]
    per_image: dict[str, np.ndarray]
    selection: Selection | None
    error: str = ""

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row that has per-image values."""
        return save_rows_per_image(folder, self.results, self.per_image)


def run_bank(
    encoder: FrozenEncoder,
    train: Examples,
    val: Examples | None,
    test: Examples,
    config: BankConfig,
    *,
    naming: Naming,
    storage: Storage | None = None,
    share: Share = ALL,
) -> list[HeadOutcome]:
    """Train every head x rate x seed on `train`; one outcome per head and seed, on `test`.

    With several rates each (head, seed) chooses its own, on `val` or on a held-out part of train;
    `test` is read once, by the chosen heads. A head whose loss or predictions are not finite has an
    outcome with an error and without rows. `share` is what this process does of it. Raises
    FrozenEncoderChanged where the encoder is not what it was, ValueError where the sets do not fit
    together.
    """
    for other in (test,) if val is None else (val, test):
        refuse_unlike(train.task.identity, other.task.identity, (train.place, other.place))
    train.check()
    if not pairs_of(config, share):
        return []
    kept = storage or Storage()
    with proven_frozen(encoder) as sha, products(config.head_precision):
        source = source_for(encoder, train, config, kept.features, sha)
        bank = Bank(encoder, train, val, config, kept, source, sha, naming.model, share)
        chosen = bank.chosen()
        label = f"{naming.model}: {train.task.name} probes on {test.name}, test"
        members = [member for member, _ in chosen]
        panels = score_bank(members, encoder, test, config, label=label)
    shared = {
        **config.protocol(),
        **train.facts,
        "loss": train.task.loss_name,
        "train_images": len(train),
        "evaluation": "whole picture squashed to the resolution, outputs at the truth's size",
        **encoder.protocol(config.resolution),
        "encoder_sha256": sha,
        **source.protocol(),
    }
    return [
        _outcome(member, selection, scorers, test, shared, naming)
        for (member, selection), scorers in zip(chosen, panels, strict=True)
    ]


def source_for(
    encoder: FrozenEncoder,
    train: Examples,
    config: BankConfig,
    store: FeatureStore | None,
    fingerprint: str,
) -> BatchSource:
    """Batches of `train` from the store, or live where there is none."""
    if store is None:
        return LiveSource(encoder, train, config)
    return StoredSource(store, encoder, train, config, fingerprint=fingerprint)


def _outcome(
    member: Member,
    selection: Selection | None,
    scorers: Sequence[Scorer],
    test: Examples,
    shared: Mapping[str, object],
    naming: Naming,
) -> HeadOutcome:
    tested = Tested(
        task=test.task.name,
        dataset=test.name,
        probe=member.key.head,
        n=len(test),
        seed=member.key.seed,
    )
    error = fault_of(scorers, tested, naming)
    if member.diverged:
        rates = [member.key.lr] if selection is None else sorted(selection.scores)
        error = (
            f"{naming.model}: {member.key.head}, seed {member.key.seed}, on {test.name}: its loss "
            f"was not finite at {', '.join(f'{rate:g}' for rate in rates)}; set a smaller learning "
            "rate (--lr)"
        )
    if error:
        return HeadOutcome(
            member=member, results=[], per_image={}, selection=selection, error=error
        )
    chosen = {"lr": member.key.lr, "selection": "none: one rate"}
    protocol = {
        **shared,
        "head": member.key.head,
        **(chosen if selection is None else selection.protocol()),
    }
    rows, per_image = rows_of(scorers, tested, naming, protocol)
    return HeadOutcome(member=member, results=rows, per_image=per_image, selection=selection)
