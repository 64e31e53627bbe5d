"""Several processes for one data set: what each of them trains, and that they end together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from torch import distributed

from cliptex.models.config import HeadName
from cliptex.probes.bank_config import BankConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """What one of `size` processes does of a list of independent items: every `size`-th.

    Of a bank the items are its pairs of head and seed: all learning rates of a pair stay
    together, so that each process chooses its own heads' rates and none needs to hear of another.
    """

    rank: int = 0
    size: int = 1

    def of(self, items: Iterable[T]) -> list[T]:
        """This process's items; none where there are more processes than items."""
        return list(items)[self.rank :: self.size]


ALL = Share()


def pairs_of(config: BankConfig, share: Share) -> list[tuple[HeadName, int]]:
    """Heads and seeds of a share of a bank."""
    return share.of((head, seed) for head in config.heads for seed in config.seeds)


def wait_for_others() -> None:
    """Under torchrun, until every process is here: when one of them fails, it ends the others."""
    if not distributed.is_torchelastic_launched():
        return
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()
    distributed.destroy_process_group()
