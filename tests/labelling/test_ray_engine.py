"""A real Ray cluster of four machines on this one: kills, re-runs, and shards that cannot be done.

Every expert here leaves a mark per image that it is asked about, so a test can tell which machine
is in the middle of which shard, and what was labelled twice.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptex.cli.app import main
from cliptex.experts.protocol import Expert, ExpertSpec, Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions, RayOptions
from cliptex.labelling.ray_engine import (
    connected,
    import_ray,
    label_shards_with_ray,
    room_for,
    with_gpus,
)
from cliptex.labelling.ray_pool import ShardLabeller, Work
from cliptex.labels.kinds import ScalarField
from cliptex.shards.dataset import ImageTextShards

ray = pytest.importorskip("ray")

PATIENCE = 240.0  # seconds: Ray starts slowly where the processor is shared
STORE_BYTES = 78643200  # the least that Ray allows


@dataclass(frozen=True)
class Marking:
    """Labels by brightness, and touches `marks/IMAGE.machine.time` for each image.

    The first to be asked about image `hold` stays there for as long as a test may take; images
    `broken` raise, and image `deadly` ends the process.
    """

    marks: Path
    hold: int = -1
    broken: frozenset[int] = frozenset()
    deadly: int = -1

    @property
    def spec(self) -> ExpertSpec:
        return ExpertSpec(
            name="marking",
            kind=ScalarField("1/m"),
            source="a test",
            revision="1",
            weights_sha256="0" * 64,
            licence="none",
        )

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        for number in (int(image[0, 0, 0]) for image in images):
            machine = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
            (self.marks / f"{number}.{machine}.{time.monotonic_ns()}").touch()
            if number in self.broken:
                raise ArithmeticError("this image is beyond me")
            if number == self.deadly:
                os._exit(1)
            if number == self.hold and not (self.marks / "held").exists():
                (self.marks / "held").write_text(machine)
                time.sleep(2 * PATIENCE)
            time.sleep(0.05)
        return [Prediction(image.mean(axis=2, dtype=np.float32)) for image in images]


@dataclass(frozen=True)
class Machines:
    """The cluster; `nodes` are its machines with room for an actor each, by id."""

    cluster: Any
    folder: str

    @property
    def nodes(self) -> dict[str, Any]:
        return {node.node_id: node for node in self.cluster.worker_nodes}


def add_node(cluster: Any, **arguments: Any) -> None:
    """Start a node; Ray gives each 30 s, which is short where the processor is shared."""
    for _ in range(3):
        try:
            cluster.add_node(wait=False, **arguments)
            return
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    pytest.fail("a node of Ray did not start within 30 s, three times")


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A cluster of a head without room and three machines with one CPU each."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets need a short path
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        common = {"object_store_memory": STORE_BYTES}
        head = {"num_cpus": 0, "include_dashboard": False, **common}
        cluster = Cluster()
        try:
            add_node(cluster, **head)
            for _ in range(3):
                add_node(cluster, num_cpus=1, **common)
            patch.setenv("RAY_ADDRESS", cluster.address)
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield Machines(cluster, folder)
        finally:
            ray.shutdown()
            cluster.shutdown()
            # A node's handler would stay, and be inherited by processes that other tests fork and
            # then cannot end.
            signal.signal(signal.SIGTERM, before)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def experts_travel_by_value() -> Iterator[None]:
    """Actors cannot import this file."""
    this = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(this)
    yield
    ray.cloudpickle.unregister_pickle_by_value(this)


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def asked(marks: Path) -> Counter[int]:
    """How often an expert was asked about each image."""
    return Counter(int(path.name.split(".")[0]) for path in marks.glob("*.*"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


def undisturbed(shards: ImageTextShards, folder: Path) -> dict[str, bytes]:
    """The store of a local run."""
    (folder / "no-marks").mkdir(parents=True)
    label_shards(
        shards, [Marking(folder / "no-marks")], folder / "sound", LabelOptions(batch_size=1)
    )
    return tree(folder / "sound")


def test_a_machine_killed_within_a_shard__byte_identical(
    machines: Machines, make_shards, draw_picture, marks: Path, tmp_path: Path
) -> None:
    shards = make_shards([draw_picture(i, (20, 30)) for i in range(36)])
    out, held = tmp_path / "out", marks / "held"
    before: list[str] = []

    def kill_the_holder() -> None:
        wait_for(lambda: held.exists() and held.read_text())
        wait_for(lambda: len(list(out.rglob("*.ledger"))) >= 3)
        before.extend(path.stem for path in out.rglob("*.ledger"))
        node = machines.nodes[held.read_text()]
        machines.cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill_the_holder, daemon=True)
    killer.start()
    # Image 13 is the second of shard 3.
    run = label_shards_with_ray(
        shards, lambda: [Marking(marks, hold=13)], out, LabelOptions(batch_size=1)
    )
    killer.join()

    assert len(machines.nodes) == 2 and "tiny-00003" not in before and len(before) >= 3
    assert tree(out) == undisturbed(shards, tmp_path / "local")
    assert run.failures == {} and run.reports[0].shards_done == 9
    assert run.reports[0].statuses == {"ok": 36}
    twice = {image for image, times in asked(marks).items() if times > 1}
    assert {12, 13} == twice, "only the shard that was cut short is labelled again"
    assert asked(marks).total() == 38

    again = label_shards_with_ray(shards, lambda: [Marking(marks)], out, LabelOptions(batch_size=1))
    assert (again.reports[0].shards_done, again.reports[0].shards_skipped) == (0, 9)
    assert asked(marks).total() == 38


def test_hopeless_and_deadly_shards__are_named_and_the_others_labelled(
    machines: Machines, make_shards, draw_picture, marks: Path, tmp_path: Path
) -> None:
    """Of shard 1 every image fails, within shard 2 every actor dies."""
    images = [draw_picture(i, (20, 30)) for i in range(64)]
    shards, out = make_shards(images, per_shard=16), tmp_path / "out"
    bad = Marking(marks, broken=frozenset(range(16, 32)), deadly=35)
    run = label_shards_with_ray(shards, lambda: [bad], out, LabelOptions(batch_size=1))
    assert sorted(run.failures) == ["tiny-00001.tar", "tiny-00002.tar"]
    assert "failed on each of the first 16 images" in run.failures["tiny-00001.tar"]
    assert "4 actors died within it" in run.failures["tiny-00002.tar"]
    assert run.reports[0].shards_done == 2 and asked(marks)[35] == 4
    before = asked(marks)
    run = label_shards_with_ray(shards, lambda: [Marking(marks)], out, LabelOptions(batch_size=1))
    assert run.failures == {}
    assert (run.reports[0].shards_done, run.reports[0].shards_skipped) == (2, 2)
    assert set(asked(marks) - before) == set(range(16, 48))
    assert tree(out) == undisturbed(shards, tmp_path / "local")


def test_the_command_line__as_the_local_engine(
    machines: Machines, shards: ImageTextShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: Path, *engine: str) -> str:
        place = ["--data", str(shards.root), "--out", str(out)]
        assert main(["label", "run", *place, "--expert", "playroom:depth", *engine]) == 0
        return capsys.readouterr().out

    ray_engine = ["--engine", "ray", "--ray.actors", "1"]
    assert "3 shards done, 0 done before: 12 ok" in run(tmp_path / "out", *ray_engine)
    run(tmp_path / "local")
    assert tree(tmp_path / "out") == tree(tmp_path / "local")


DRIVER = """
import importlib.util, signal, sys
from pathlib import Path
import ray
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.ray_engine import label_shards_with_ray
from cliptex.shards.dataset import ImageTextShards

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
spec = importlib.util.spec_from_file_location("the_test", sys.argv[1])
test = importlib.util.module_from_spec(spec)
sys.modules["the_test"] = test
spec.loader.exec_module(test)
ray.cloudpickle.register_pickle_by_value(test)
data, out, marks = map(Path, sys.argv[2:])
shards = ImageTextShards(data, cache=Path(f"{data}-cache"))
experts = lambda: [test.Marking(marks, hold=21)]
label_shards_with_ray(shards, experts, out, LabelOptions(batch_size=1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended__leaves_whole_shards_and_goes_on(
    machines: Machines,
    make_shards,
    draw_picture,
    marks: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    shards = make_shards([draw_picture(i, (20, 30)) for i in range(24)])
    out, held = tmp_path / "out", marks / "held"
    command = [sys.executable, "-c", DRIVER, __file__, str(shards.root), str(out), str(marks)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
        # Image 21 is in the last shard; the others are done while its actor stays there.
        wait_for(lambda: held.exists() and len(list(out.rglob("*.ledger"))) == 5)
        driver.send_signal(number)
        driver.wait(PATIENCE)
    assert driver.returncode != 0
    assert len(list(out.rglob("*.ledger"))) == 5
    if number != signal.SIGKILL:
        assert not list(out.rglob("*.cliptex-tmp"))
    run = label_shards_with_ray(shards, lambda: [Marking(marks)], out, LabelOptions(batch_size=1))
    assert run.reports[0].shards_done == 1
    assert tree(out) == undisturbed(shards, tmp_path / "local")
    assert {image for image, times in asked(marks).items() if times > 1} == {20, 21}


def test_an_expert_that_cannot_be_loaded__ends_the_run_at_once(
    machines: Machines, shards: ImageTextShards, tmp_path: Path
) -> None:
    def make() -> Sequence[Expert]:
        raise FileNotFoundError("weights.onnx does not exist")

    with pytest.raises(FileNotFoundError, match=r"^weights.onnx does not exist") as caught:
        label_shards_with_ray(shards, make, tmp_path / "out")
    assert caught.value.__notes__ == [f"on the machine {platform.node()}"]


def labeller(shards: ImageTextShards, marks: Path, out: Path) -> ShardLabeller:
    """The actor without Ray."""
    work = Work(
        shards=shards,
        make_experts=lambda: [Marking(marks)],
        out=out,
        options=LabelOptions(batch_size=1),
        folder=str(marks),
    )
    return ShardLabeller(work)


def test_a_machine_that_sees_no_images_or_no_store(
    shards: ImageTextShards, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ready = labeller(shards, marks, tmp_path / "out").prepare([])
    assert ready.experts == ("marking",) and ready.stores == (tmp_path / "out" / "marking",)
    with pytest.raises(FileNotFoundError, match="manifest.json cannot be seen; images and label"):
        labeller(shards, marks, tmp_path / "local").prepare([tmp_path / "local" / "marking"])
    arrived = pickle.loads(pickle.dumps(shards))  # nothing is open in it
    for tar in shards.root.glob("*.tar"):
        tar.unlink()
    with pytest.raises(FileNotFoundError, match="is not what it is where the run") as caught:
        labeller(arrived, marks, tmp_path / "out").prepare(ready.stores)
    assert caught.value.__notes__ == [f"on the machine {platform.node()}"]


def test_an_actor_lists_the_stores_once(
    shards: ImageTextShards, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many shards it labels: else a run would cost the square of their number."""
    monkeypatch.chdir(tmp_path)
    listed: list[Path] = []
    real = Path.rglob

    def rglob(self: Path, pattern: str):
        listed.append(self)
        return real(self, pattern)

    actor = labeller(shards, marks, tmp_path / "out")
    monkeypatch.setattr(Path, "rglob", rglob)
    actor.prepare([])
    at_first = len(listed)
    assert at_first > 0
    for shard in shards.shards:
        assert actor.label(shard).reports[0].shards_done == 1
    assert len(listed) == at_first


def test_a_full_disk_is_raised_and_other_errors_are_the_shards(
    shards: ImageTextShards, marks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    actor = labeller(shards, marks, tmp_path / "out")
    actor.prepare([])
    (shards.root / shards.shards[1]).unlink()
    gone = actor.label(shards.shards[1])
    assert gone.reports == () and gone.error.startswith(f"FileNotFoundError on {platform.node()}")

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="free some space"):
        actor.label(shards.shards[2])


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}


def test_room_for_actors() -> None:
    nodes = [node(CPU=8, GPU=2), node(CPU=3), node(alive=False, CPU=64), node()]
    assert room_for(nodes, RayOptions()) == 11
    assert room_for(nodes, RayOptions(cpus=2)) == 5
    assert room_for(nodes, with_gpus(nodes, RayOptions())) == 2
    assert room_for(nodes, with_gpus(nodes, RayOptions(gpus=0.5))) == 4
    assert room_for(nodes, with_gpus(nodes, RayOptions(cpus=5))) == 1
    assert with_gpus(nodes[1:], RayOptions()).gpus == 0
    with pytest.raises(ValueError, match=r"actor of 1 CPUs and 4 GPUs.* 8 CPUs, 2 GPUs; 3 CPUs"):
        room_for(nodes, RayOptions(gpus=4))
    for wrong in ({"actors": 0}, {"cpus": 0}, {"gpus": -1}):
        with pytest.raises(ValueError, match="positive"):
            RayOptions(**wrong)


def test_without_ray__the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'cliptex\[ray\]'"):
        import_ray()


def test_an_address_where_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ValueError, match=f"no Ray cluster answers at {address}"),
            connected(RayOptions(address=address)),
        ):
            pass
