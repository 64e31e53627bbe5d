from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cliptex.pipeline.side_by_side import side_by_side


def test_side_by_side__two_meet_and_a_third_waits_for_both(tmp_path: Path) -> None:
    def meet(mine: str, other: str) -> int:
        (tmp_path / mine).touch()
        deadline = time.monotonic() + 20
        while not (tmp_path / other).exists():  # only there while both run
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return os.getpid()

    works = {
        "c": lambda: sorted(path.name for path in tmp_path.iterdir() if path.is_file()),
        "a": lambda: meet("a", "b"),
        "b": lambda: meet("b", "a"),
    }
    needs = {"a": (), "b": (), "c": ("a", "b")}
    results = side_by_side(works, needs, jobs=2, logs=tmp_path / "logs")
    assert results["c"] == ["a", "b"]
    assert len({results["a"], results["b"], os.getpid()}) == 3


def test_side_by_side__threads_are_shared_and_output_goes_to_the_log(tmp_path: Path) -> None:
    def work() -> int:
        os.write(1, b"to standard output\n")
        os.write(2, b"to standard error\n")
        return torch.get_num_threads()

    before = torch.get_num_threads()
    results = side_by_side({"one": work}, {"one": ()}, jobs=2, logs=tmp_path)
    assert results == {"one": max(1, before // 2)}
    assert (tmp_path / "one.txt").read_text() == "to standard output\nto standard error\n"
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (FileNotFoundError(2, "No such file", "x.tar"), ValueError),
        (KeyError("x.tar"), RuntimeError),
    ],
)
def test_side_by_side__an_error_comes_back_and_ends_the_others(
    tmp_path: Path, raised: Exception, kind: type[Exception]
) -> None:
    def wrong() -> None:
        _awaited(tmp_path / "pid")  # so that there is somebody to end
        raised.add_note("in stage 'wrong'")
        raise raised

    def endless() -> None:
        (tmp_path / "pid.tmp").write_text(str(os.getpid()))
        (tmp_path / "pid.tmp").rename(tmp_path / "pid")
        time.sleep(600)

    works = {"endless": endless, "wrong": wrong, "later": wrong}
    needs = {"endless": (), "wrong": (), "later": ("endless",)}
    with pytest.raises(kind, match=r"x\.tar") as caught:
        side_by_side(works, needs, jobs=2, logs=tmp_path / "logs")
    notes = caught.value.__notes__
    assert notes == ["in stage 'wrong'", f"what it printed: {tmp_path / 'logs' / 'wrong.txt'}"]
    assert "Traceback" in (tmp_path / "logs" / "wrong.txt").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_side_by_side__a_killed_work_is_named_with_the_signal(tmp_path: Path) -> None:
    works = {"victim": lambda: os.kill(os.getpid(), signal.SIGKILL)}
    with pytest.raises(RuntimeError, match="victim was ended: signal SIGKILL"):
        side_by_side(works, {"victim": ()}, jobs=2, logs=tmp_path)


CALLER = """
import os, sys, time
from pathlib import Path
from cliptex.pipeline.side_by_side import side_by_side
here = Path(sys.argv[1])
def work():
    (here / "pid.tmp").write_text(str(os.getpid()))
    (here / "pid.tmp").rename(here / "pid")
    time.sleep(600)
side_by_side({"work": work}, {"work": ()}, jobs=2, logs=here / "logs")
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_side_by_side__children_end_with_a_caller_that_is_killed(tmp_path: Path, sent: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path)]) as caller:
        child = _awaited(tmp_path / "pid")
        caller.send_signal(sent)
        caller.wait(timeout=20)
    deadline = time.monotonic() + 20
    while _alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _awaited(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def _alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
