"""Works that wait only for one another, several at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from cliptex.console import say

T = TypeVar("T")


def side_by_side(
    works: Mapping[str, Callable[[], T]],
    needs: Mapping[str, Collection[str]],
    *,
    jobs: int,
    logs: Path,
) -> dict[str, T]:
    """Call every work once all that it `needs` is done, at most `jobs` at a time.

    Each is called in a forked process with its share of the threads; the earlier in `works` goes
    first. What it prints goes to `logs`/NAME.txt. Where one raises, or the caller is interrupted,
    the others are ended and the error is raised with a note that names the log; where the caller
    is killed, they end too. The caller must not have computed with torch: OpenMP's threads do not
    live through a fork.
    """
    results: dict[str, T] = {}
    running: list[_Child[T]] = []
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while len(results) < len(works):
            begun = results.keys() | {child.name for child in running}
            ready = [n for n in works if n not in begun and results.keys() >= set(needs[n])]
            for name in ready[: jobs - len(running)]:
                running.append(_start(name, works[name], logs / f"{name}.txt", jobs))
            answered = wait([child.answer for child in running])
            for child in [child for child in running if child.answer in answered]:
                results[child.name] = child.result()
                running.remove(child)
    finally:
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.join()
    return results


@dataclass(frozen=True)
class _Child(Generic[T]):
    name: str
    process: BaseProcess
    answer: Connection
    log: Path
    start: float

    def result(self) -> T:
        """What the work returned; raises what it raised."""
        value: Any = None
        error: Exception | None = None
        with suppress(EOFError):  # of a work that was killed, so that it could not answer
            value, error = self.answer.recv()
        self.process.join()
        if error is None and self.process.exitcode != 0:
            error = RuntimeError(f"{self.name} was ended: {_cause(self.process)}")
        if error is not None:
            error.add_note(f"what it printed: {self.log}")
            raise error
        say(f"{self.name}: {time.monotonic() - self.start:.1f} s")
        return value


def _start(name: str, work: Callable[[], T], log: Path, jobs: int) -> _Child[T]:
    say(f"{name} … ({log})")
    fork = multiprocessing.get_context("fork")  # works are closures, which cannot be sent
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_child, args=(work, sender, log, jobs), name=name)
    process.start()
    sender.close()  # so that the child's death ends the pipe
    return _Child(name, process, receiver, log, time.monotonic())


def _child(work: Callable[[], object], answer: Connection, log: Path, jobs: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        answer.send((work(), None))
    except BaseException as error:
        os.write(2, traceback.format_exc().encode())
        answer.send((None, _sendable(error)))


def _sendable(error: BaseException) -> Exception:
    """The user's errors as ValueError, others as RuntimeError: not every type can be pickled."""
    kind = ValueError if isinstance(error, (ValueError, OSError)) else RuntimeError
    sent = kind(str(error) or type(error).__name__)
    for note in getattr(error, "__notes__", []):
        sent.add_note(note)
    return sent


def _cause(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _end_with_parent() -> None:
    """A killed caller guards its folder no longer, so its children must not write to it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
