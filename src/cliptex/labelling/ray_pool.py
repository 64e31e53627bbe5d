"""The actors of a run on a Ray cluster: what one does, and a pool that keeps them at work.

An actor loads its experts once and labels a shard per call. Ray could restart actors and repeat
their calls itself, but a call stays with its actor: where a machine is gone and no other has room,
its shard would wait for a machine that may never come while other actors have nothing to do. So a
shard whose actor died goes to whoever is free next, and a new actor is asked for, which starts when
and where there is room.
"""

from __future__ import annotations

import errno
import os
import platform
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cliptex.console import say
from cliptex.experts.protocol import Expert
from cliptex.files import AnyPath, exists
from cliptex.labelling.engine import LabelRunReport, label_shards
from cliptex.labelling.options import LabelOptions, RayOptions
from cliptex.labels.manifest import FILE_NAME
from cliptex.shards.dataset import ImageTextShards

MakeExperts = Callable[[], Sequence[Expert]]
SHARED = "images and label stores must lie under paths that every machine of the cluster sees"
MAX_DEATHS_OF_A_SHARD = 4  # actors that die within one shard, until it is blamed for it
MAX_DEATHS_IN_A_ROW = 10  # actors that die with no shard finished in between
SECONDS_TO_SAY = 60.0  # without any actor at work, until the run says that it waits
SECONDS_TO_DIE = 10.0  # at most, for actors that were killed


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every actor of a run is told, once.

    `folder` is the one in which the run was started, so that relative paths mean the same on every
    machine that has it.
    """

    shards: ImageTextShards
    make_experts: MakeExperts
    out: AnyPath
    options: LabelOptions
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
        return label_shards(
            work.shards, self._experts, work.out, work.options, only=only, sweep=sweep
        )


class ActorPool:
    """Up to `size` actors that share out shards; `close` ends them, whatever they do."""

    def __init__(self, ray: Any, work: Work, options: RayOptions, size: int) -> None:
        self._ray = ray
        self._size = size
        self._work = ray.put(work)
        self._actor = ray.remote(ShardLabeller).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._doing: dict[Any, tuple[Any, str | None]] = {}  # call -> actor, shard if it labels
        self._idle: list[Any] = []
        self._due: deque[str] = deque()
        self._stores: tuple[AnyPath, ...] = ()
        self._deaths = 0
        self._deaths_within: Counter[str] = Counter()

    def prepare(self) -> Ready:
        """Start one actor, which loads the experts and claims their stores.

        Raises what went wrong there, with the machine's name as a note.
        """
        self._add()
        while True:
            answer = self._next_answer()
            if isinstance(answer, Ready):
                self._stores = answer.stores  # which all other actors must see
                return answer
            if not self._doing:
                self._add()

    def label(self, due: Sequence[str]) -> Iterator[ShardResult]:
        """Label the shards, after `prepare`; yields each one's result as it comes.

        Raises OSError where the disk is full, RuntimeError where actors do nothing but die.
        """
        self._due.extend(due)
        self._assign()
        while self._due or self._in_work():
            answer = self._next_answer()
            if isinstance(answer, ShardResult):
                self._deaths = 0
                yield answer
            self._assign()

    def close(self) -> bool:
        """End all actors; whether some of them were at work."""
        interrupted = self._in_work() > 0
        for actor in [*self._idle, *(actor for actor, _ in self._doing.values())]:
            self._ray.kill(actor)
        calls = list(self._doing)
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=SECONDS_TO_DIE)
        self._doing, self._idle = {}, []
        return interrupted

    def _in_work(self) -> int:
        return sum(shard is not None for _, shard in self._doing.values())

    def _add(self) -> None:
        actor = self._actor.remote(self._work)
        self._doing[actor.prepare.remote(self._stores)] = (actor, None)

    def _assign(self) -> None:
        """Give shards to those who are free, and ask for actors where more could work."""
        while self._idle and self._due:
            actor, shard = self._idle.pop(), self._due.popleft()
            self._doing[actor.label.remote(shard)] = (actor, shard)
        wanted = min(self._size, len(self._due) + self._in_work())
        while len(self._doing) + len(self._idle) < wanted:
            self._add()

    def _next_answer(self) -> Ready | ShardResult | None:
        """The next thing that an actor says; None where it was nothing, or the actor died."""
        done, _ = self._ray.wait(list(self._doing), num_returns=1, timeout=SECONDS_TO_SAY)
        if not done:
            if not self._in_work():
                say("waiting for an actor: the cluster has no room yet, or it loads its experts")
            return None
        actor, shard = self._doing.pop(done[0])
        try:
            answer = self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            if shard is not None:  # a full disk stops every machine
                self._idle.append(actor)
                raise error.cause from None
            return self._leave_out(actor, error.cause)
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                return self._leave_out(actor, error)
            return self._on_death(actor, shard, error)
        self._idle.append(actor)
        return answer

    def _leave_out(self, actor: Any, error: BaseException) -> None:
        """An actor that cannot work on its machine is not replaced: others may do without it."""
        self._ray.kill(actor)
        self._size -= 1
        if not self._stores or not self._size:
            raise error
        notes = getattr(error, "__notes__", [])
        say(f"one actor less: {'; '.join([_last_line(error), *notes])}")

    def _on_death(self, actor: Any, shard: str | None, error: Exception) -> ShardResult | None:
        """An actor died, by itself or with its machine: its shard is due again."""
        self._ray.kill(actor)  # it may live on, unreachable
        self._deaths += 1
        if self._deaths > max(MAX_DEATHS_IN_A_ROW, 2 * self._size):
            raise RuntimeError(
                f"{self._deaths} actors died one after another and no shard was finished between "
                f"them; the last said: {_last_line(error)}"
            )
        if shard is None:
            say(f"an actor died before it was ready: {_last_line(error)}")
            return None
        self._deaths_within[shard] += 1
        if self._deaths_within[shard] >= MAX_DEATHS_OF_A_SHARD:
            times = f"{MAX_DEATHS_OF_A_SHARD} actors died within it"
            return ShardResult(shard=shard, error=f"{times}; the last said: {_last_line(error)}")
        say(f"an actor died within {shard}, which goes to another: {_last_line(error)}")
        self._due.appendleft(shard)
        return None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
