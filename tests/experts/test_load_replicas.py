"""One expert on several devices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from cliptex.experts import load as load_module
from cliptex.experts.load import ReplicatedExpert, load_on_devices
from cliptex.experts.protocol import ExpertSpec, Placement, Prediction, concurrency_of
from cliptex.experts.torch_expert import TorchExpert
from cliptex.labels.kinds import ScalarField


@dataclass
class Meeting:
    """Answers only when as many calls as `meet` waits for are under way."""

    meet: threading.Barrier
    name: str = "meeting"
    calls: list[int] = field(default_factory=list)

    @property
    def spec(self) -> ExpertSpec:
        kind = ScalarField("1/m")
        fields = {"source": "", "revision": "", "weights_sha256": "", "licence": ""}
        return ExpertSpec(name=self.name, kind=kind, **fields)

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        self.calls.append(len(images))
        self.meet.wait()
        return [Prediction(image.mean(axis=2)) for image in images]


def test_as_many_calls_at_once_as_replicas__each_in_one_of_them() -> None:
    meet = threading.Barrier(3, timeout=20)
    replicas = [Meeting(meet) for _ in range(3)]
    expert = ReplicatedExpert(replicas)
    assert concurrency_of(expert) == 3 and concurrency_of(replicas[0]) == 1
    images = [np.full((2, 2, 3), i, np.uint8) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda image: expert.predict([image])[0], images))
    assert [replica.calls for replica in replicas] == [[1, 1]] * 3
    assert [int(one.label[0, 0]) for one in found] == list(range(6))


def test_copies_of_other_experts_are_refused() -> None:
    meet = threading.Barrier(1)
    with pytest.raises(ValueError, match="copies of one expert"):
        ReplicatedExpert([Meeting(meet), Meeting(meet, "other")])
    with pytest.raises(ValueError, match="copies of one expert"):
        ReplicatedExpert([])


def test_load_on_devices() -> None:
    alone = load_on_devices("playroom:depth")
    assert isinstance(alone, TorchExpert) and alone.placement == Placement()
    # "cpu" and "cpu:0" are the same to PyTorch: two devices for the purpose of this test
    both = load_on_devices("playroom:depth", devices=("cpu", "cpu:0"))
    assert isinstance(both, ReplicatedExpert) and concurrency_of(both) == 2
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    expected = alone.predict([image])[0].label
    for _ in range(2):  # each replica in turn
        assert np.array_equal(both.predict([image])[0].label, expected)
    half = load_on_devices("playroom:depth", precision="bfloat16")
    assert half.spec.preprocessing["precision"] == "bfloat16" and half.spec != alone.spec
    with pytest.raises(ValueError, match="each once"):
        load_on_devices("playroom:depth", devices=("cpu", "cpu"))
    with pytest.raises(ValueError, match="no device cuda:7"):
        load_on_devices("playroom:depth", devices=("cuda:7",))


@pytest.mark.parametrize(
    ("asked", "process", "present", "expected"),
    [
        ("auto", None, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("auto", "2", 4, ["cuda:2"]),
        ("cuda", "2", 4, ["cuda:2"]),
        ("cuda", None, 4, ["cuda"]),
        ("cuda", "2", 1, ["cuda:0"]),  # each process sees its own device alone
        ("cuda:1", "2", 4, ["cuda:1"]),
        ("auto", "2", 0, ["cpu"]),
    ],
)
def test_load_on_devices__under_torchrun(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    process: str | None,
    present: int,
    expected: list[str],
) -> None:
    """It starts a process for each device of a machine, and says which in LOCAL_RANK."""
    placed: list[str] = []

    def load(name, weights, placement, *rest):
        placed.append(placement.device)
        return object()

    if process is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", process)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    monkeypatch.setattr(load_module, "load_expert", load)
    monkeypatch.setattr(load_module, "ReplicatedExpert", list)
    load_on_devices("playroom:depth", devices=(asked,))
    assert placed == expected


def test_load_on_devices__apples_gpu_where_there_is_no_other(monkeypatch) -> None:
    placed: list[str] = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(load_module, "load_expert", lambda *args: placed.append(args[2].device))
    monkeypatch.setattr("cliptex.experts.onnx.has_cuda", lambda: True)
    load_on_devices("playroom:depth", devices=("auto",))
    load_on_devices("deeplab_voc21", devices=("auto",))
    assert placed == ["mps", "cpu"]
