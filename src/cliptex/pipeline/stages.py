"""The one resumable stage runner: the demo, the photo run and the zoo are lists of stages.

A stage is a function that fills one folder, keyed by its configuration:

    FOLDER/NAME/stage.json   written at the start: key, configuration, what it depends on
    FOLDER/NAME/...          whatever the stage itself writes
    FOLDER/NAME/done.json    written last: key, seconds of the attempt that finished, attempts

Same key and `done.json`: not done again. Same key without it (a killed run): the stage is entered
again in its own folder and may go on from what it finds there. Another key: the folder is moved to
FOLDER/.replaced/NAME (one generation is kept) and the stage starts from nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from cliptex.console import say
from cliptex.files import check_can_make, parse_json, write_atomic
from cliptex.pipeline.side_by_side import side_by_side

STARTED = "stage.json"
DONE = "done.json"
REPLACED = ".replaced"
LOCK = ".lock"
LOGS = ".logs"
GO_ON = "what is done is kept: run the same command again to go on"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


@dataclass(frozen=True)
class Stage:
    """One step of a run: `run(folder)` fills the stage's own folder.

    `config` is a JSON-able object and must hold everything that the result depends on, beyond the
    stages named in `depends`. `run` must be able to enter a folder with its own partial work.
    """

    name: str
    config: Mapping[str, object]
    run: Callable[[Path], object] = field(compare=False)
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Seconds of the attempt that finished, how many attempts it took, whether it ran now."""

    name: str
    seconds: float
    attempts: int
    ran: bool


@dataclass(frozen=True)
class StageReport:
    """The times of all stages of a run, in their order."""

    times: tuple[StageTime, ...]

    @property
    def seconds(self) -> float:
        """Sum over all stages, also those that an earlier run did or that ran side by side."""
        return sum(stage.seconds for stage in self.times)


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    *,
    only: Collection[str] | None = None,
    jobs: int = 1,
) -> StageReport:
    """Run what is not done yet, in the given order, and return the times.

    `only` limits the run to the named stages and what they depend on. With `jobs` above one, so
    many stages run at a time, each in a process with its share of the threads; what they print
    goes to FOLDER/.logs. Raises ValueError for a list that makes no sense (a name twice, a
    dependency that does not come before) and BlockingIOError where another process runs in
    `folder`. What a stage raises passes through with a note that names the stage, its folder and
    how to go on (with several jobs as ValueError or RuntimeError).
    """
    if jobs < 1:
        raise ValueError(f"jobs {jobs}: at least one stage must run at a time")
    keys = stage_keys(stages)
    wanted = _wanted(stages, only)
    chosen = [stage for stage in stages if stage.name in wanted]
    works: dict[str, Callable[[], StageTime]] = {}
    for position, stage in enumerate(chosen, start=1):
        upstream = {name: keys[name] for name in stage.depends}
        attempt = _Attempt(stage, folder / stage.name, keys[stage.name], upstream)
        works[stage.name] = partial(attempt.run, f"[{position}/{len(chosen)}] {stage.name}")
    with _locked(folder):
        if jobs == 1:
            times = {name: work() for name, work in works.items()}
        else:
            needs = {stage.name: stage.depends for stage in chosen}
            times = side_by_side(works, needs, jobs=jobs, logs=folder / LOGS)
    report = StageReport(tuple(times[stage.name] for stage in chosen))
    _say_times(report)
    return report


def stage_keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Name -> sha256 of the stage's configuration and of the keys of what it depends on."""
    keys: dict[str, str] = {}
    for stage in stages:
        if not _NAME.fullmatch(stage.name):
            raise ValueError(f"stage name {stage.name!r}: use letters, digits, '.', '_', '-'")
        if stage.name in keys:
            raise ValueError(f"two stages are named {stage.name!r}")
        if absent := [name for name in stage.depends if name not in keys]:
            raise ValueError(f"stage {stage.name!r} depends on {absent}, which must come before it")
        upstream = {name: keys[name] for name in stage.depends}
        keys[stage.name] = hashlib.sha256(_canonical(stage, upstream)).hexdigest()
    return keys


def read_times(folder: Path) -> tuple[StageTime, ...]:
    """The times of all finished stages below `folder`, in the order in which they finished."""
    found = []
    for path in folder.glob(f"*/{DONE}"):
        done = _read_json(path)
        if done is not None and {"seconds", "attempts"} <= done.keys():
            time_of = StageTime(
                name=path.parent.name,
                seconds=float(done["seconds"]),
                attempts=int(done["attempts"]),
                ran=False,
            )
            found.append((path.stat().st_mtime_ns, time_of))
    return tuple(time_of for _, time_of in sorted(found, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class _Attempt:
    stage: Stage
    folder: Path
    key: str
    upstream: dict[str, str]

    def run(self, title: str) -> StageTime:
        done = _read_json(self.folder / DONE)
        if done is not None and done.get("key") == self.key:
            seconds, attempts = float(done["seconds"]), int(done["attempts"])
            say(f"{title}: done before ({seconds:.1f} s)")
            return StageTime(name=self.stage.name, seconds=seconds, attempts=attempts, ran=False)
        attempts = self._enter()
        say(f"{title} …" + (f" (attempt {attempts})" if attempts > 1 else ""))
        start = time.monotonic()
        try:
            self.stage.run(self.folder)
        except BaseException as error:
            error.add_note(f"in stage {self.stage.name!r} (folder {self.folder}); {GO_ON}")
            raise
        seconds = round(time.monotonic() - start, 3)
        write_json(self.folder / DONE, {"key": self.key, "seconds": seconds, "attempts": attempts})
        say(f"{title}: {seconds:.1f} s")
        return StageTime(name=self.stage.name, seconds=seconds, attempts=attempts, ran=True)

    def _enter(self) -> int:
        """Make the folder ready for this key; returns the number of this attempt."""
        before = _read_json(self.folder / STARTED)
        if before is not None and before.get("key") == self.key:
            attempts = int(before.get("attempts", 1)) + 1
        else:
            attempts = 1
            for half in self.folder.glob(f".{STARTED}.*tmp"):  # of a run killed right below
                half.unlink()
            if self.folder.is_dir() and any(self.folder.iterdir()):
                self._move_aside(before)
        (self.folder / DONE).unlink(missing_ok=True)
        started = {
            "key": self.key,
            "config": dict(self.stage.config),
            "depends": self.upstream,
            "attempts": attempts,
        }
        write_json(self.folder / STARTED, started)
        return attempts

    def _move_aside(self, before: dict | None) -> None:
        target = self.folder.parent / REPLACED / self.folder.name
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(exist_ok=True)
        self.folder.rename(target)
        say(f"{self.stage.name}: earlier work moved to {target} because {self._reason(before)}")

    def _reason(self, before: dict | None) -> str:
        if before is None:
            return f"it holds no readable {STARTED}"
        old, new = before.get("config", {}), json.loads(_canonical(self.stage, {}))["config"]
        changed = [f"{key} changed" for key in sorted({*old, *new}) if _differs(old, new, key)]
        depends = before.get("depends", {})
        names = sorted({*depends, *self.upstream})
        changed += [f"stage {n!r} changed" for n in names if _differs(depends, self.upstream, n)]
        return ", ".join(changed) or "its key changed"


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _differs(old: Mapping[str, object], new: Mapping[str, object], key: str) -> bool:
    return key not in old or key not in new or old[key] != new[key]


def _canonical(stage: Stage, upstream: Mapping[str, str]) -> bytes:
    content = {"config": dict(stage.config), "depends": upstream}
    try:
        return json.dumps(content, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"stage {stage.name!r}: its config is not JSON: {error}") from error


def _wanted(stages: Sequence[Stage], only: Collection[str] | None) -> set[str]:
    names = [stage.name for stage in stages]
    if only is None:
        return set(names)
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(f"no stage named {unknown}; there are {names}")
    wanted = set(only)
    for stage in reversed(stages):  # dependencies come before, so one pass backwards suffices
        if stage.name in wanted:
            wanted.update(stage.depends)
    return wanted


def _read_json(path: Path) -> dict | None:
    """The object in `path`, or None where there is none or it is damaged (then it is redone)."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold FOLDER/.lock: two runs in one folder would undo each other's work.

    The kernel drops the lock with the process that holds it (and forked data workers do not
    inherit it), so a killed run leaves nothing to clean; the pid inside is for the message.
    """
    check_can_make(folder, "the folder of the run")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    lock = FileLock(path, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        raise BlockingIOError(
            f"{folder} is in use by process {holder}: wait for it or choose another folder"
        ) from None
    try:
        path.write_text(str(os.getpid()), encoding="utf-8")
        yield
        path.write_text("", encoding="utf-8")
    finally:
        lock.release()


def _say_times(report: StageReport) -> None:
    width = max((len(stage.name) for stage in report.times), default=5)
    for stage in report.times:
        notes = [] if stage.ran else ["done before"]
        notes += [f"{stage.attempts} attempts, last one timed"] if stage.attempts > 1 else []
        tail = f"  ({'; '.join(notes)})" if notes else ""
        say(f"{stage.name:<{width}} {stage.seconds:9.1f} s{tail}")
    say(f"{'all':<{width}} {report.seconds:9.1f} s")
