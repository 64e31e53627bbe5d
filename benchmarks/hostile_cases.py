"""What a hostile input is, how it is judged, and the ways in which bytes and trees are damaged."""

from __future__ import annotations

import copy
import io
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliptex import console
from cliptex.cli.app import one_line

RIGHT, REFUSED, CRASHED, WRONG = "right", "refused", "crashed", "silently wrong"
SECONDS = 20  # a case that takes longer has crashed
LONGEST = 1000  # characters of an error, as the command line shows it


@dataclass(frozen=True)
class Case:
    """One input.

    how: how to make it, in words.
    run: reads it with CLIPTeX; called once.
    judge: of what `run` gave and of all that was said meanwhile, what is wrong ("" where nothing).
    names: an error has to hold one of these, the names of the file.
    readable: an independent reader reads it without a complaint.
    """

    how: str
    run: Callable[[], Any]
    judge: Callable[[Any, str], str]
    names: tuple[str, ...]
    readable: bool = False


@dataclass(frozen=True)
class Outcome:
    """`fate` is one of RIGHT, REFUSED, CRASHED, WRONG; `detail` says more."""

    kind: str
    number: int
    how: str
    fate: str
    detail: str = ""
    readable: bool = False


class TooSlow(BaseException):
    """Raised by the alarm; nothing catches it by accident."""


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def heard() -> Iterator[Callable[[], str]]:
    """All that is printed, said and warned within."""
    out = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(out), redirect_stderr(out):
        warnings.simplefilter("always")
        yield lambda: out.getvalue() + "\n".join(str(w.message) for w in caught)


def outcome(kind: str, number: int, case: Case) -> Outcome:
    """Run and judge one case."""
    found = Outcome(kind, number, case.how, RIGHT, readable=case.readable)
    with heard() as said:
        try:
            with _alarm():
                answer = case.run()
        except TooSlow:
            return replace(found, fate=CRASHED, detail=f"takes more than {SECONDS} s")
        except (ValueError, OSError, console.TooManyFailures) as error:
            fault = _fault(error, case.names)
            return replace(found, fate=CRASHED if fault else REFUSED, detail=fault or str(error))
        except Exception as error:
            return replace(found, fate=CRASHED, detail=f"{type(error).__name__}: {error}"[:300])
    wrong = case.judge(answer, said())
    return replace(found, fate=WRONG if wrong else RIGHT, detail=wrong)


def _fault(error: Exception, names: tuple[str, ...]) -> str:
    """Why an error is no line that a user can act on."""
    text = one_line(error)
    if len(text) > LONGEST:
        return f"an error of {len(text)} characters: {text[:300]!r}"
    if not any(name in text for name in names):
        return f"an error that does not name the file: {type(error).__name__}: {text[:300]}"
    return ""


def damage(rng: random.Random, data: bytes, *, ascii_only: bool = False) -> tuple[bytes, str]:
    """`data` cut, flipped, overwritten or spliced, and what was done in words."""
    if not data:
        return b"x", "one byte where there was none"
    way = rng.randrange(6)
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 2, 16, 512)), len(data) - start)
    end = start + length
    if way == 0:
        return data[:start], f"cut to {start} of {len(data)} bytes"
    if way in (1, 2):
        changed = bytearray(data)
        places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 3)))]
        for place in places:
            bit = rng.randrange(7 if ascii_only else 8)
            changed[place] ^= 1 << bit
        return bytes(changed), f"a bit flipped in the bytes {places} of {len(data)}"
    if way == 3:
        return data[:start] + data[end:], f"bytes {start} to {end} taken out"
    if way == 4:
        return data[:end] + data[start:], f"bytes {start} to {end} twice"
    filler = b" " if ascii_only else b"\0"
    return data[:start] + filler * length + data[end:], f"bytes {start} to {end} blanked"


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value can be changed: every key and index below its top."""
    found: list[tuple[Any, ...]] = [here] if here else []
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            found += places(value, (*here, key))
    return found


ODD: tuple[Any, ...] = (
    *(None, False, True, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", " ", "1", "nan"),
    *([], {}, [None], ["a", "b"], {"a": 1}, "\ud800", "a\0b", "../../etc/passwd", "/etc/passwd"),
    *("x" * 200_000, "a\nb", "\u2028", "é", [[]], -0.0, 2**63, "1e3", "./a", "."),
)


def disturb(rng: random.Random, tree: Any) -> tuple[Any, str]:
    """A copy of a JSON tree with one value taken out, doubled or replaced, and what in words."""
    tree = copy.deepcopy(tree)
    path = rng.choice(places(tree))
    holder: Any = tree
    for key in path[:-1]:
        holder = holder[key]
    where = "".join(f"[{key!r}]" for key in path)
    way = rng.randrange(4)
    if way == 0:
        del holder[path[-1]]
        return tree, f"{where} taken out"
    if way == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[path[-1]]))
        return tree, f"{where} twice"
    holder[path[-1]] = odd = copy.deepcopy(rng.choice(ODD))
    return tree, f"{where} = {odd!r}"[:120]


def short(text: object, length: int = 200) -> str:
    shown = text if isinstance(text, str) else repr(text)
    return shown if len(shown) <= length else shown[:length] + "..."


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
