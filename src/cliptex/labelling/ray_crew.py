"""The actors of a run on a Ray cluster, which of them does what, and what happens when one dies.

Ray could restart actors and repeat their calls itself, but a call stays with its actor: where a
machine is gone and no other has room, its shard would wait for a machine that may never come
while other actors have nothing to do. So a shard whose actor died goes to whoever is free next,
and a new actor is asked for, which starts when and where there is room.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from cliptex.console import say
from cliptex.files import AnyPath
from cliptex.labelling.ray_actor import Ready, ShardLabeller, ShardResult, Work
from cliptex.labelling.ray_cluster import RayOptions

MAX_DEATHS_OF_A_SHARD = 4  # actors that die within one shard, until it is blamed for it
MAX_DEATHS_IN_A_ROW = 10  # actors that die with no shard finished in between
SECONDS_TO_SAY = 60.0  # without any actor at work, until the run says that it waits
SECONDS_TO_DIE = 10.0  # at most, for actors that were killed


class Crew:
    """Up to `size` actors that share out shards; `dismiss` ends them, whatever they do."""

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
        self._hire()
        while True:
            answer = self._next_answer()
            if isinstance(answer, Ready):
                self._stores = answer.stores  # which all other actors must see
                return answer
            if not self._doing:
                self._hire()

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

    def dismiss(self) -> bool:
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

    def _hire(self) -> None:
        actor = self._actor.remote(self._work)
        self._doing[actor.prepare.remote(self._stores)] = (actor, None)

    def _assign(self) -> None:
        """Give shards to those who are free, and ask for actors where more could work."""
        while self._idle and self._due:
            actor, shard = self._idle.pop(), self._due.popleft()
            self._doing[actor.label.remote(shard)] = (actor, shard)
        wanted = min(self._size, len(self._due) + self._in_work())
        while len(self._doing) + len(self._idle) < wanted:
            self._hire()

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
            return self._mourn(actor, shard, error)
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

    def _mourn(self, actor: Any, shard: str | None, error: Exception) -> ShardResult | None:
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
