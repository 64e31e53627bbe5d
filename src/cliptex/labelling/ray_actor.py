"""The Ray actor of the labelling engine: loads its experts once, labels a shard per call."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cliptex.experts.protocol import Expert
from cliptex.files import AnyPath, exists
from cliptex.labelling.engine import LabelRunReport
from cliptex.labels.manifest import FILE_NAME
from cliptex.shards.dataset import ImageTextShards

MakeExperts = Callable[[], Sequence[Expert]]
SHARED = "images and label stores must lie under paths that every machine of the cluster sees"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every actor of a run is told, once.

    `label` is `label_shards` with the run's settings; `folder` is the one in which the run was
    started, so that relative paths mean the same on every machine that has it.
    """

    shards: ImageTextShards
    make_experts: MakeExperts
    out: AnyPath
    label: Callable[..., tuple[LabelRunReport, ...]]
    folder: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """An actor's answer when it has loaded its experts: where it runs, and their stores."""

    machine: str
    experts: tuple[str, ...]
    stores: tuple[AnyPath, ...]


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of one shard: a report per expert, or why it has no labels."""

    shard: str
    reports: tuple[LabelRunReport, ...] = ()
    error: str = ""


class ShardLabeller:
    """The actor. Labels go from it to the stores; its answers are counts."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._experts: tuple[Expert, ...] = ()

    def prepare(self, stores: Sequence[AnyPath]) -> Ready:
        """Load the experts, unless that was done, and claim their stores.

        `stores` are those that another actor has claimed, none for the first. Raises OSError where
        this machine does not see the images or the stores, ValueError where its experts are not
        those of the stores, and whatever loading an expert raises; each with the machine's name.
        """
        with suppress(OSError):  # a machine without the folder can do with absolute paths
            os.chdir(self._work.folder)
        try:
            self._see(stores)
            if not self._experts:
                self._experts = tuple(self._work.make_experts())
            reports = self._label([], sweep=True)  # once for all shards of this actor
        except Exception as error:
            error.add_note(f"on the machine {platform.node()}")
            raise
        return Ready(
            machine=platform.node(),
            experts=tuple(expert.spec.name for expert in self._experts),
            stores=tuple(report.folder for report in reports),
        )

    def label(self, shard: str) -> ShardResult:
        """Label one shard with every expert that lacks it; raises OSError on a full disk only."""
        try:
            return ShardResult(shard=shard, reports=self._label([shard], sweep=False))
        except Exception as error:  # of this shard: the others go on, and the run says so at last
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            where = f"on {platform.node()}"
            return ShardResult(shard=shard, error=f"{type(error).__name__} {where}: {error}")

    def _see(self, stores: Sequence[AnyPath]) -> None:
        shards = self._work.shards
        try:
            shards[0]
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{shards.root} is not what it is where the run was started ({error}); {SHARED}"
            ) from None
        for store in stores:
            if not exists(store / FILE_NAME):
                raise FileNotFoundError(f"{store / FILE_NAME} cannot be seen; {SHARED}")

    def _label(self, only: Sequence[str], *, sweep: bool) -> tuple[LabelRunReport, ...]:
        work = self._work
        return work.label(work.shards, self._experts, work.out, only=only, sweep=sweep)
