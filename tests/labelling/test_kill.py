"""SIGKILL at ten moments of a run, and SIGTERM once: the store ends as if nothing had happened.

One server process imports the program once and forks a labelling process per request, so that the
twenty runs of this file cost no twenty starts of Python.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = """
import os, sys, time
from pathlib import Path
import numpy as np
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labels.kinds import ScalarField
from cliptex.shards.dataset import ImageTextShards

assert "torch" not in sys.modules

class Slow:
    spec = ExpertSpec(name="slow", kind=ScalarField("1/m"), source="a test", revision="1",
                      weights_sha256="0" * 64, licence="none")

    def predict(self, images):
        time.sleep(pause)
        return [Prediction(image.mean(axis=2, dtype=np.float32)) for image in images]

for line in sys.stdin:
    data, out, pause = line.split()
    shards = ImageTextShards(data, cache=Path(data + "-cache"))
    pause = float(pause)
    child = os.fork()
    if child == 0:
        try:
            label_shards(shards, Slow(), Path(out), batch_size=1)
        except SystemExit as stop:
            os._exit(stop.code)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
PAUSE = 0.015  # seconds that the expert takes for an image


class Server:
    """Starts labelling runs and waits for them."""

    def __init__(self) -> None:
        self.data = Path()
        command = [sys.executable, "-c", SERVER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, out: Path, pause: float) -> int:
        """The process id of a new run."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.data} {out} {pause}\n")
        return self._number()

    def finish(self) -> int:
        """The exit code of the run that was started last."""
        return self._number()

    def run(self, out: Path, pause: float = 0) -> None:
        """A run that nobody disturbs."""
        self.start(out, pause)
        assert self.finish() == 0

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def idle_server() -> Iterator[Server]:
    started = Server()
    with started.process:
        yield started
        assert started.process.stdin is not None
        started.process.stdin.close()


@pytest.fixture
def server(idle_server: Server, shards) -> Server:
    """The server, about to label this test's shards."""
    idle_server.data = shards.root
    return idle_server


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_killed_at_ten_moments__byte_identical(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path / "warm")
    began = time.monotonic()
    server.run(tmp_path / "sound", PAUSE)
    duration = time.monotonic() - began
    sound = tree(tmp_path / "sound")
    assert len(sound) == 7, "a manifest, three tars, three ledgers"
    moments = random.Random(0)
    killed = 0
    for attempt in range(10):
        out = tmp_path / f"killed-{attempt}"
        run = server.start(out, PAUSE)
        time.sleep(moments.uniform(0, duration))
        kill(run, signal.SIGKILL)
        killed += server.finish() == -signal.SIGKILL
        server.run(out)
        assert tree(out) == sound, f"after the kill number {attempt}"
    assert killed >= 5, "most of the kills must have met a living run"


def test_killed_again_and_again_on_one_store(server: Server, tmp_path: Path) -> None:
    """One store whose run is killed five times before it may finish."""
    server.run(tmp_path / "sound")
    for moment in (0.02, 0.05, 0.1, 0.15, 0.2):
        run = server.start(tmp_path / "out", PAUSE)
        time.sleep(moment)
        kill(run, signal.SIGKILL)
        server.finish()
    server.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "sound")


def test_terminated__leaves_whole_shards_only(server: Server, tmp_path: Path) -> None:
    run = server.start(tmp_path / "out", 0.2)
    deadline = time.monotonic() + 30
    while not list(tmp_path.rglob(".*.tar.*.cliptex-tmp")) and time.monotonic() < deadline:
        time.sleep(0.005)
    kill(run, signal.SIGTERM)
    assert server.finish() == 128 + signal.SIGTERM
    suffixes = {Path(name).suffix for name in tree(tmp_path / "out")}
    assert suffixes <= {".json", ".tar", ".ledger"}


def kill(process: int, number: signal.Signals) -> None:
    """Send a signal to a run, which may have ended meanwhile."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
