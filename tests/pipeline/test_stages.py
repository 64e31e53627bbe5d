from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cliptex.pipeline.stages import Stage, read_times, run_stages, stage_keys


class Recorder:
    """Makes stages that note their runs and write one file."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def stage(self, name: str, depends: tuple[str, ...] = (), **config: object) -> Stage:
        def run(folder: Path) -> None:
            self.ran.append(name)
            (folder / "out.txt").write_text(json.dumps(config))

        return Stage(name, config, run, depends)

    def run(self, folder: Path, *stages: Stage, **options) -> list[str]:
        self.ran.clear()
        run_stages(stages, folder, **options)
        return list(self.ran)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def chain(recorder: Recorder, **configs: int) -> tuple[Stage, ...]:
    """data -> {labels, train} with train -> probe; each with its own number as configuration."""
    values = {"data": 0, "labels": 0, "train": 0, "probe": 0} | configs
    above = {"data": (), "labels": ("data",), "train": ("data",), "probe": ("train",)}
    return tuple(recorder.stage(n, above[n], value=v) for n, v in values.items())


def test_second_run_does_nothing(tmp_path, recorder):
    assert recorder.run(tmp_path, *chain(recorder)) == ["data", "labels", "train", "probe"]
    assert recorder.run(tmp_path, *chain(recorder)) == []


@pytest.mark.parametrize(
    ("changed", "redone"),
    [
        ("data", ["data", "labels", "train", "probe"]),
        ("labels", ["labels"]),
        ("train", ["train", "probe"]),
        ("probe", ["probe"]),
    ],
)
def test_changed_config_redoes_it_and_what_is_downstream(tmp_path, recorder, changed, redone):
    recorder.run(tmp_path, *chain(recorder))
    assert recorder.run(tmp_path, *chain(recorder, **{changed: 1})) == redone
    assert recorder.run(tmp_path, *chain(recorder, **{changed: 1})) == []


def test_key_ignores_the_order_of_config_and_holds_depends():
    def key(config: dict, depends: tuple[str, ...] = ()) -> str:
        first = Stage("first", {}, print)
        return stage_keys([first, Stage("a", config, print, depends)])["a"]

    assert key({"x": 1, "y": 2}) == key({"y": 2, "x": 1})
    assert len({key({}), key({"x": 1}), key({"x": 2}), key({}, ("first",))}) == 4


def test_replaced_work_is_kept_aside_once(tmp_path, recorder):
    for value in (0, 1, 2):
        recorder.run(tmp_path, *chain(recorder, probe=value))
    assert json.loads((tmp_path / "probe/out.txt").read_text()) == {"value": 2}
    assert json.loads((tmp_path / ".replaced/probe/out.txt").read_text()) == {"value": 1}


def test_failure_keeps_partial_work_of_the_same_key_only(tmp_path):
    seen: list[list[str]] = []

    def stage(value: int, fail: bool) -> Stage:
        def run(folder: Path) -> None:
            seen.append(sorted(path.name for path in folder.glob("part*")))
            (folder / f"part{len(seen)}").touch()
            if fail:
                raise ValueError("boom")

        return Stage("work", {"value": value}, run)

    for value in (0, 0, 1):
        with pytest.raises(ValueError, match="boom") as caught:
            run_stages([stage(value, fail=True)], tmp_path)
        note = "".join(caught.value.__notes__)
        assert "'work'" in note and str(tmp_path / "work") in note and "again" in note
    report = run_stages([stage(1, fail=False)], tmp_path)
    assert seen == [[], ["part1"], [], ["part3"]]
    assert report.times[0].attempts == 2


def test_foreign_folder_is_moved_aside_not_mixed(tmp_path, recorder):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    recorder.run(tmp_path, recorder.stage("data"))
    assert not (tmp_path / "data/precious.txt").exists()
    assert (tmp_path / ".replaced/data/precious.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["", "{", "[1]"])
def test_damaged_marker_means_not_done(tmp_path, recorder, damage):
    recorder.run(tmp_path, recorder.stage("data"))
    (tmp_path / "data/done.json").write_text(damage)
    assert recorder.run(tmp_path, recorder.stage("data")) == ["data"]


def test_only_takes_what_it_depends_on_along(tmp_path, recorder):
    assert recorder.run(tmp_path, *chain(recorder), only=["probe"]) == ["data", "train", "probe"]
    with pytest.raises(ValueError, match="no stage named"):
        run_stages(chain(recorder), tmp_path, only=["prob"])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage("a", {}, print), Stage("a", {}, print)], "two stages are named 'a'"),
        ([Stage("a", {}, print, ("b",)), Stage("b", {}, print)], "must come before"),
        ([Stage("../a", {}, print)], "stage name"),
        ([Stage("a", {"path": Path("x")}, print)], "stage 'a': its config is not JSON"),
        ([Stage("a", {"x": float("nan")}, print)], "stage 'a': its config is not JSON"),
    ],
)
def test_senseless_lists_are_refused_before_anything_runs(tmp_path, stages, message):
    with pytest.raises(ValueError, match=message):
        run_stages(stages, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_times_are_reported_and_can_be_read_back(tmp_path):
    stages = [Stage("b", {}, lambda _: time.sleep(0.05)), Stage("a", {}, lambda _: None)]
    report = run_stages(stages, tmp_path)
    assert [stage.name for stage in report.times] == ["b", "a"]
    assert 0.05 <= report.times[0].seconds < 5 and report.seconds >= 0.05
    assert [stage.name for stage in read_times(tmp_path)] == ["b", "a"]
    again = run_stages(stages, tmp_path)
    assert again.seconds == report.seconds and not any(stage.ran for stage in again.times)


CHILD = """
import sys, time
from pathlib import Path
from cliptex.pipeline.stages import Stage, run_stages

def count(folder):
    path = folder / "count.txt"
    for i in range(len(path.read_text()) if path.exists() else 0, total):
        with path.open("a") as file:
            file.write("x")
        time.sleep(0.005)

total = int(sys.argv[2])
stages = [Stage(name, {"n": total}, count) for name in ("one", "two")]
print("ready", flush=True)
run_stages(stages, Path(sys.argv[1]))
"""


def start(folder: Path, total: int = 40) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), str(total)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def test_killed_runs_go_on_and_leave_no_lock(tmp_path):
    for delay in random.Random(0).sample([0.01, 0.05, 0.1, 0.2, 0.3], 4):
        child = start(tmp_path)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    child = start(tmp_path)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    for name in ("one", "two"):
        assert (tmp_path / name / "count.txt").read_text() == "x" * 40
        assert (tmp_path / name / "done.json").exists()
    assert not (tmp_path / ".replaced").exists()


def test_killed_while_it_notes_a_new_key__earlier_work_is_kept(tmp_path, recorder):
    recorder.run(tmp_path, recorder.stage("data", n=1))
    old = (tmp_path / "data/out.txt").read_bytes()
    changed = recorder.stage("data", n=2)
    (tmp_path / "data").rename(tmp_path / "kept")  # as the killed run leaves it: see `_enter`
    (tmp_path / ".replaced").mkdir()
    (tmp_path / "kept").rename(tmp_path / ".replaced/data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.stage.json.0123.tmp").write_text('{"key"')
    assert recorder.run(tmp_path, changed) == ["data"]
    assert (tmp_path / ".replaced/data/out.txt").read_bytes() == old
    assert not list((tmp_path / "data").glob(".*.tmp"))


def test_second_run_in_a_busy_folder_is_refused_and_a_stale_lock_is_not(tmp_path, recorder):
    child = start(tmp_path, 100_000)  # eight minutes, of which it is given some milliseconds
    while not (tmp_path / "one/stage.json").exists():
        assert child.poll() is None
        time.sleep(0.01)
    with pytest.raises(BlockingIOError, match=f"in use by process {child.pid}"):
        run_stages([recorder.stage("three")], tmp_path)
    child.kill()
    child.communicate()
    assert (tmp_path / ".lock").read_text() == str(child.pid)
    assert recorder.run(tmp_path, recorder.stage("three")) == ["three"]
    assert os.path.getsize(tmp_path / ".lock") == 0


def test_several_jobs_leave_what_one_leaves(tmp_path, recorder):
    stages = chain(recorder, probe=7)
    run_stages(stages, tmp_path / "one")
    report = run_stages(stages, tmp_path / "two", jobs=2)
    assert [(time.name, time.ran) for time in report.times] == [(s.name, True) for s in stages]
    for stage in stages:
        for name in ("out.txt", "stage.json"):
            one, two = (tmp_path / run / stage.name / name for run in ("one", "two"))
            assert one.read_bytes() == two.read_bytes()
    again = run_stages(stages, tmp_path / "two", jobs=2)
    assert not any(time.ran for time in again.times)
    logs = {path.name for path in (tmp_path / "two" / ".logs").iterdir()}
    assert logs == {f"{stage.name}.txt" for stage in stages}


def test_a_stage_that_fails_beside_others_says_how_to_go_on(tmp_path, recorder):
    def fail(folder: Path) -> None:
        raise FileNotFoundError("labels are gone")

    stages = [recorder.stage("data"), Stage("probe", {}, fail, ("data",))]
    with pytest.raises(ValueError, match="labels are gone") as caught:
        run_stages(stages, tmp_path, jobs=2)
    assert "run the same command again" in caught.value.__notes__[0]
    assert recorder.run(tmp_path, stages[0]) == []  # what was done is kept


def test_no_jobs_are_refused(tmp_path, recorder):
    with pytest.raises(ValueError, match="jobs 0"):
        run_stages([recorder.stage("data")], tmp_path, jobs=0)
