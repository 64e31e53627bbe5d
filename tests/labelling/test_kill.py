"""SIGKILL at any moment, SIGTERM, a full disk, two runs at once: the store ends as if undisturbed.

One server process imports the program once and forks labelling processes as asked, so that the
hundred runs of this file cost no hundred starts of Python. Each labels with three experts in one
pass, and notes every image that an expert is shown.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

SERVER = """
import os, resource, signal, sys, time
from pathlib import Path
import numpy as np
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.shards.dataset import ImageTextShards

assert "torch" not in sys.modules
CLASSES = ClassMap(("even", "odd"))

class Noting:
    def __init__(self, name, kind, label, pause, log, broken):
        self.spec = ExpertSpec(name=name, kind=kind, source="a test", revision="1",
                               weights_sha256="0" * 64, licence="none")
        self.label, self.pause, self.log, self.broken = label, pause, log, broken

    def predict(self, images):
        time.sleep(self.pause)
        for image in images:
            os.write(self.log, f"{self.spec.name} {image[0, 0, 0]}\\n".encode())
            if self.broken and image[0, 0, 0] % 4 == 1:
                raise RuntimeError("not in the mood")
        return [Prediction(self.label(image)) for image in images]

def experts(pause, *log):
    return [
        Noting("classes", CLASSES, lambda image: image[:, :, 1] % 2, 0, *log),
        Noting("depth", ScalarField("1/m"), lambda image: image.mean(axis=2), pause, *log),
        Noting("normals", UnitVector(), lambda image: image - 20.5, pause / 3, *log),
    ]

def die_within(renames):
    # SIGKILL in the place of the given one of all renames.
    replace, left = Path.replace, iter(range(renames - 1))
    def counted(path, target):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)
    Path.replace = counted

def label(data, out, pause, limit, mood, renames):
    log = os.open(out + "-log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    shards = ImageTextShards(data, cache=Path(data + "-cache"))
    every = experts(pause, log, mood == "bad")
    if renames:
        die_within(renames)
    try:
        options = LabelOptions(batch_size=1)
        label_shards(shards, every, Path(out), options, retry_failed=mood == "retry")
    except SystemExit as stop:
        return stop.code
    except OSError as error:
        return error.errno
    return 0

for line in sys.stdin:
    data, out, pause, limit, copies, mood, renames = line.split()
    ImageTextShards(data, cache=Path(data + "-cache"))
    children = []
    for _ in range(int(copies)):
        children.append(os.fork())
        if children[-1] == 0:
            code = 99
            try:
                code = label(data, out, float(pause), int(limit), mood, int(renames))
            finally:
                os._exit(code)
    print(children[0], flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(max(codes, key=abs), flush=True)
"""
Mood = Literal["good", "bad", "retry"]
PAUSE = 0.015  # seconds that the slowest expert takes for an image


class Server:
    """Starts labelling runs and waits for them."""

    def __init__(self) -> None:
        self.data = Path()
        command = [sys.executable, "-c", SERVER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(
        self,
        out: Path,
        pause: float,
        *,
        limit: int = 0,
        copies: int = 1,
        mood: Mood = "good",
        renames: int = 0,
    ) -> int:
        """The process id of a new run, or of the first of several.

        `limit` bytes a file; in a bad mood the experts fail on an image of each shard, "retry"
        labels such shards anew; of its renames number `renames` kills the run.
        """
        assert self.process.stdin is not None
        line = f"{self.data} {out} {pause} {limit} {copies} {mood} {renames}\n"
        self.process.stdin.write(line)
        return self._number()

    def finish(self) -> int:
        """The exit code of what was started last; of several runs, the first that is not 0."""
        return self._number()

    def run(self, out: Path, pause: float = 0, mood: Mood = "good") -> None:
        """A run that nobody disturbs."""
        self.start(out, pause, mood=mood)
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
    log = Path(f"{out}-log")
    return Counter(log.read_text().splitlines() if log.exists() else [])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def shown_for_good(out: Path) -> Counter[str]:
    """Of shards that are committed by now, how often each image was shown to the shard's expert."""
    ledgers = [path.relative_to(out) for path in out.rglob("*.ledger")]
    images = {
        f"{path.parts[0]} {4 * int(path.stem.rpartition('-')[2]) + i}"
        for path in ledgers
        for i in range(4)
    }
    return Counter({image: n for image, n in shown(out).items() if image in images})


def finish(server: Server, out: Path, mood: Mood = "good") -> int:
    """Run again, to the end; of what was committed before nothing may be labelled twice.

    Returns how many images that is.
    """
    before = shown_for_good(out)
    server.run(out, mood=mood)
    after = shown(out)
    assert before == Counter({image: after[image] for image in before})
    return len(before)


def wait_for(images: int, out: Path) -> None:
    """Until a run into `out` has shown its experts so many images."""
    deadline = time.monotonic() + 60
    while shown(out).total() < images and time.monotonic() < deadline:
        time.sleep(0.001)


def test_killed_at_ten_moments__byte_identical(server: Server, tmp_path: Path) -> None:
    server.run(tmp_path / "warm")
    server.run(tmp_path / "sound", PAUSE)
    sound = tree(tmp_path / "sound")
    assert len(sound) == 21, "of each expert a manifest, three tars, three ledgers"
    assert len(shown(tmp_path / "sound")) == 36 and set(shown(tmp_path / "sound").values()) == {1}
    moments = random.Random(0)
    killed = kept = 0
    for attempt in range(10):
        out = tmp_path / f"killed-{attempt}"
        run = server.start(out, PAUSE)
        wait_for(moments.randrange(30), out)
        time.sleep(moments.uniform(0, PAUSE))
        kill(run, signal.SIGKILL)
        killed += server.finish() == -signal.SIGKILL
        kept += 0 < finish(server, out) < 36
        assert tree(out) == sound, f"after the kill number {attempt}"
    assert killed >= 5, "most of the kills must have met a living run"
    assert kept >= 2, "some of the kills must have come between two commits"


def test_killed_again_and_again_on_one_store(server: Server, tmp_path: Path) -> None:
    """One store whose run is killed five times before it may finish."""
    server.run(tmp_path / "sound")
    for moment in (0.02, 0.05, 0.1, 0.15, 0.2):
        run = server.start(tmp_path / "out", PAUSE)
        time.sleep(moment)
        before = shown_for_good(tmp_path / "out")
        kill(run, signal.SIGKILL)
        server.finish()
        assert before <= shown_for_good(tmp_path / "out"), "what is committed stays so"
    finish(server, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "sound")
    assert set(shown_for_good(tmp_path / "out")) == set(shown(tmp_path / "sound"))


def test_a_retry_killed_at_every_rename__is_taken_up_by_the_next(
    server: Server, make_shards, draw_picture, tmp_path: Path
) -> None:
    """Wherever a retry ends between an old ledger and the new one, the shard is not forgotten."""
    server.data = make_shards([draw_picture(i, (20, 30)) for i in range(4)]).root
    server.run(tmp_path / "sound")
    sound = tree(tmp_path / "sound")
    server.run(tmp_path / "failed", mood="bad")
    for renames in range(1, 7):  # each expert's tar and ledger
        out = tmp_path / f"killed-{renames}"
        shutil.copytree(tmp_path / "failed", out)
        server.start(out, 0, mood="retry", renames=renames)
        assert server.finish() == -signal.SIGKILL
        server.run(out, mood="retry")
        assert tree(out) == sound, f"after a kill at rename {renames}"


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves so many bytes of the file system."""
    ballast = folder / "ballast"
    disk = os.statvfs(folder)
    ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize - leave))
    return ballast


@pytest.mark.parametrize("leave", [0, 30_000, 70_000])
def test_a_full_disk__keeps_whole_shards_and_goes_on(
    server: Server, tmp_path: Path, small_disk: Path, leave: int
) -> None:
    server.run(tmp_path / "sound")
    sound, out = tree(tmp_path / "sound"), small_disk / "out"
    ballast = fill(small_disk, leave)
    server.start(out, 0)
    assert server.finish() == errno.ENOSPC
    assert tree(out).items() <= sound.items(), "nothing but whole files"
    ballast.unlink()
    assert finish(server, out) < 36
    assert tree(out) == sound


def test_a_full_disk__leaves_a_retry_as_it_was(
    server: Server, tmp_path: Path, small_disk: Path
) -> None:
    server.run(tmp_path / "sound")
    out = small_disk / "out"
    server.run(out, mood="bad")
    before = tree(out)
    ballast = fill(small_disk, 4096)
    server.start(out, 0, mood="retry")
    assert server.finish() == errno.ENOSPC
    assert tree(out) == before
    ballast.unlink()
    server.run(out, mood="retry")
    assert tree(out) == tree(tmp_path / "sound")


def kill(process: int, number: signal.Signals) -> None:
    """Send a signal to a run, which may have ended meanwhile."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
