"""Progress and messages, as records of the logger "cliptex".

Messages go to `logging.getLogger("cliptex")`, whose one handler prints them on standard error as
they are. A program that uses the library decides by the logging module alone: a level above INFO
silences messages and progress, `handlers.clear()` leaves them to handlers of its own. Progress is
a bar of rich on a terminal, and elsewhere a message every ten seconds.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_SECONDS = 10.0
MAX_FAILURES = 0.05  # share of inputs that may be left out (docs/decisions.md)

T = TypeVar("T")

LOGGER = logging.getLogger("cliptex")


class StandardErrorHandler(logging.Handler):
    """Prints messages on what is standard error at that moment: tests and bars replace it.

    Quiet (see `quiet`), only warnings. Nothing where a handler of the root logger prints them on a
    standard stream already.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if (record.levelno >= logging.WARNING or not quiet()) and not _printed_by_root():
            print(self.format(record), file=sys.stderr)


def _printed_by_root() -> bool:
    streams = (sys.stdout, sys.stderr)
    return LOGGER.propagate and any(
        isinstance(handler, logging.StreamHandler) and handler.stream in streams
        for handler in logging.getLogger().handlers
    )


_HANDLER = StandardErrorHandler()
LOGGER.addHandler(_HANDLER)
if LOGGER.level == logging.NOTSET:  # else the root logger's, which is WARNING by default
    LOGGER.setLevel(logging.INFO)


class TooManyFailures(Exception):
    """More inputs were left out than allowed; what was written is whole and stays.

    The command line prints the message as one line and exits with status 3.
    """


def check_failures(failed: int, total: int, *, allowed: float, what: str, remedy: str) -> None:
    """Raise `TooManyFailures` where more than the share `allowed` (0 to 1) of `total` failed.

    `what` names the inputs in the plural ("images"), `remedy` says what to do about it.
    """
    if not 0 <= allowed <= 1:
        raise ValueError(f"max_failures {allowed}: not a share from 0 to 1")
    if failed > allowed * total:
        share = 100 * failed / total
        raise TooManyFailures(
            f"{failed} of {total} {what} were left out ({share:.1f} %), more than the "
            f"{100 * allowed:g} % that `max_failures` allows; {remedy}"
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint in brackets at the one of `known` that is most like `word`; empty where none is.

    The dashes of options make nothing alike.
    """
    names = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.65)
    return f" (did you mean {names[close[0]]}?)" if close else ""


def not_among(name: str, known: Iterable[str]) -> str:
    """What an error says of a name that is not one of `known`."""
    names = sorted(known)
    return f"{name!r} is unknown{did_you_mean(name, names)}; there are {', '.join(names)}"


def quiet() -> bool:
    """True where the environment variable CLIPTEX_QUIET asks for no progress at all."""
    return os.environ.get("CLIPTEX_QUIET", "") not in ("", "0")


def say(text: str) -> None:
    """Log one line at level INFO: printed on standard error, unless quiet."""
    LOGGER.info("%s", text, stacklevel=2)


def warn(text: str) -> None:
    """Log one line at level WARNING: printed, quiet or not, where the user may be mistaken."""
    LOGGER.warning("%s", text, stacklevel=2)


def track(
    items: Iterable[T], *, label: str, total: int | None = None, done: int = 0
) -> Iterator[T]:
    """Yield `items` while showing progress.

    `total` is taken from `items` where it has a length; `done` counts what an earlier run
    finished, so that a resumed job shows its true position.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) + done
    if quiet() or not LOGGER.isEnabledFor(logging.INFO):
        yield from items
    elif _HANDLER in LOGGER.handlers and _console().is_terminal:
        yield from _track_bar(items, label, total, done)
    else:
        yield from _track_lines(items, label, total, done)


@cache
def _console() -> Console:
    """Of the standard error of the moment; only one, since only one bar may be shown."""
    from rich.console import Console  # which --help does without

    return Console(stderr=True, highlight=False)


def _track_bar(items: Iterable[T], label: str, total: int | None, done: int) -> Iterator[T]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), transient=False) as progress:
        task = progress.add_task(label, total=total, completed=done)
        for item in items:
            yield item
            progress.advance(task)


def _track_lines(items: Iterable[T], label: str, total: int | None, done: int) -> Iterator[T]:
    start = last = time.monotonic()
    count = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= LINE_EVERY_SECONDS:
            say(_progress_line(label, count, total, (count - done) / (now - start)))
            last = now
    seconds = time.monotonic() - start
    say(f"{label}: {count} done in {seconds:.1f} s")


def _progress_line(label: str, count: int, total: int | None, rate: float) -> str:
    if total is None:
        return f"{label}: {count} ({rate:.1f}/s)"
    remaining = (total - count) / rate if rate > 0 else float("inf")
    return f"{label}: {count}/{total} ({rate:.1f}/s, {remaining:.0f} s left)"
