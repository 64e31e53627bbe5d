"""SIGKILL at ten moments, SIGTERM, a full disk, two runs at once: the store ends as if undisturbed.

One server process imports the program once and forks labelling processes as asked, so that the
thirty runs of this file cost no thirty starts of Python. Each labels with three experts in one
pass, and notes every image that an expert is shown.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = """
import os, resource, sys, time
from pathlib import Path
import numpy as np
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.shards.dataset import ImageTextShards

assert "torch" not in sys.modules
CLASSES = ClassMap(("even", "odd"))

class Noting:
    def __init__(self, name, kind, label, pause, log):
        self.spec = ExpertSpec(name=name, kind=kind, source="a test", revision="1",
                               weights_sha256="0" * 64, licence="none")
        self.label, self.pause, self.log = label, pause, log

    def predict(self, images):
        time.sleep(self.pause)
        for image in images:
            os.write(self.log, f"{self.spec.name} {image[0, 0, 0]}\\n".encode())
        return [Prediction(self.label(image)) for image in images]

def experts(pause, log):
    return [
        Noting("classes", CLASSES, lambda image: image[:, :, 1] % 2, 0, log),
        Noting("depth", ScalarField("1/m"), lambda image: image.mean(axis=2), pause, log),
        Noting("normals", UnitVector(), lambda image: image - 20.5, pause / 3, log),
    ]

def label(data, out, pause, limit):
    log = os.open(out + "-log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    shards = ImageTextShards(data, cache=Path(data + "-cache"))
    try:
        label_shards(shards, experts(pause, log), Path(out), batch_size=1)
    except SystemExit as stop:
        return stop.code
    except OSError as error:
        return error.errno
    return 0

for line in sys.stdin:
    data, out, pause, limit, copies = line.split()
    ImageTextShards(data, cache=Path(data + "-cache"))
    children = []
    for _ in range(int(copies)):
        children.append(os.fork())
        if children[-1] == 0:
            code = 99
            try:
                code = label(data, out, float(pause), int(limit))
            finally:
                os._exit(code)
    print(children[0], flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(max(codes, key=abs), flush=True)
"""
PAUSE = 0.015  # seconds that the slowest expert takes for an image


class Server:
    """Starts labelling runs and waits for them."""

    def __init__(self) -> None:
        self.data = Path()
        command = [sys.executable, "-c", SERVER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, out: Path, pause: float, *, limit: int = 0, copies: int = 1) -> int:
        """The process id of a new run, or of the first of several; `limit` bytes a file."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.data} {out} {pause} {limit} {copies}\n")
        return self._number()

    def finish(self) -> int:
        """The exit code of what was started last; of several runs, the first that is not 0."""
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


def shown(out: Path) -> Counter[str]:
    """How often each image was shown to each expert, by all runs into `out` so far."""
    return Counter(Path(f"{out}-log").read_text().splitlines())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_killed_at_ten_moments__byte_identical(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path / "warm")
    began = time.monotonic()
    server.run(tmp_path / "sound", PAUSE)
    duration = time.monotonic() - began
    sound = tree(tmp_path / "sound")
    assert len(sound) == 21, "of each expert a manifest, three tars, three ledgers"
    assert len(shown(tmp_path / "sound")) == 36 and set(shown(tmp_path / "sound").values()) == {1}
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


def test_two_runs_at_once__label_nothing_twice(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path / "sound")
    server.start(tmp_path / "out", PAUSE, copies=2)
    assert server.finish() == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "sound")
    assert shown(tmp_path / "out") == shown(tmp_path / "sound")


def test_one_of_two_is_killed__the_other_does_its_part(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path / "sound")
    run = server.start(tmp_path / "out", PAUSE, copies=2)
    time.sleep(0.1)
    kill(run, signal.SIGKILL)
    server.finish()
    assert tree(tmp_path / "out") == tree(tmp_path / "sound")


def test_a_disk_that_takes_no_more__keeps_whole_shards(server: Server, tmp_path: Path) -> None:
    """The kernel refuses files above a size that the first shard's labels stay below."""
    server.run(tmp_path / "sound")
    sizes = {path.stat().st_size for path in (tmp_path / "sound").rglob("*.tar")}
    server.start(tmp_path / "out", 0, limit=min(sizes) - 1)
    assert server.finish() == errno.EFBIG
    left = tree(tmp_path / "out")
    assert {Path(name).name for name in left} == {"manifest.json"}
    server.run(tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "sound")


def kill(process: int, number: signal.Signals) -> None:
    """Send a signal to a run, which may have ended meanwhile."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
