"""Runs that are killed, and runs that go on with other ranks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cliptex.models.config import DenseConfig
from cliptex.training.config import TrainConfig, dump_config
from cliptex.training.loop import train
from cliptex.training.setup import prepare

ALL = ("segmentation", "depth", "normals")
PROGRAM = Path(__file__).with_name("train_program.py")
STEPS = 9
KILLED, ASKED, DONE = -9, 0, 0
STEADY = {"precision": "fp32", "dense": DenseConfig(width=16, dropout=0.0)}  # ranks draw their own


@pytest.fixture(scope="module")
def config(configure) -> TrainConfig:
    """Variable resolution, dropout, flips, bfloat16, an average of weights, two workers."""
    return configure(
        *ALL,
        steps=STEPS,
        workers=2,
        batch_size=9,
        resolution=((32, 32), (40, 24), (48, 40)),
        checkpoint_every=2,
        ema=0.1,
    )


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    train(config, out)
    return out


@pytest.fixture(scope="module")
def steady(config: TrainConfig, tmp_path_factory) -> Path:
    """The run of one process without dropout."""
    out = tmp_path_factory.mktemp("steady")
    train(config.model_copy(update=STEADY), out)
    return out


@pytest.fixture
def go(config: TrainConfig, tmp_path: Path, launch) -> Callable[..., list[int]]:
    """Run `tmp_path`/run on some ranks, with an event, and changes of the configuration."""

    def go(ranks: int, event: str = "", at: int = 0, **changes) -> list[int]:
        dump_config(config.model_copy(update=changes), tmp_path / "given.yaml")
        arguments = (tmp_path / "given.yaml", tmp_path / "run", tmp_path / "trace")
        return launch(ranks, PROGRAM, *arguments, *((event, str(at)) if event else ()))

    return go


def trace(out: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    timed = {"images_per_s", "data_wait", "mfu", "memory_gb"}
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def files(out: Path) -> dict[str, bytes]:
    final = out / "checkpoints"
    return {
        str(path.relative_to(final)): path.read_bytes()
        for name in ("final", "final-ema")
        for path in sorted((final / name).iterdir())
    }


def test_a_run_killed_three_times_is_bitwise_the_undisturbed_one(
    go, undisturbed: Path, tmp_path: Path
) -> None:
    first, second, third = sorted(random.sample(range(2, STEPS), 3))
    for at in (first, second, third):
        assert go(1, "KILL", at) == [KILLED], at
        assert not (tmp_path / "run" / "checkpoints" / "final").exists()
    assert go(1) == [DONE]
    assert trace(tmp_path / "run") == trace(undisturbed), (first, second, third)
    assert files(tmp_path / "run") == files(undisturbed), (first, second, third)


def samples_by_step(folder: Path) -> list[list[str]]:
    """The global batch of each step as the last process that computed it saw it."""
    by_step: dict[int, dict[int, list[str]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            by_step.setdefault(row["step"], {})[int(path.stem)] = row["names"]
    assert sorted(by_step) == list(range(1, STEPS + 1))
    return [
        [name for rank in sorted(by_step[step]) for name in by_step[step][rank]]
        for step in sorted(by_step)
    ]


@pytest.mark.parametrize(
    "worlds",
    [
        [(2, {}), (1, {})],
        [(1, {}), (2, {"parallel": "fsdp2"})],
        [(2, {"parallel": "fsdp2"}), (2, {"parallel": "ddp"})],
    ],
    ids=["2 to 1", "1 to 2 with FSDP2", "FSDP2 to DDP"],
)
def test_other_ranks_go_on_with_the_same_global_batches(
    worlds, go, config: TrainConfig, steady: Path, tmp_path: Path
) -> None:
    (before, how_before), (after, how_after) = worlds
    at = 4
    assert go(before, "TERM", at, **STEADY, **how_before) == [ASKED] * before
    stopped = len(trace(tmp_path / "run"))
    assert at <= stopped <= at + 1  # other ranks hear of it at the next step
    (tmp_path / "trace").rename(tmp_path / "before")
    (tmp_path / "trace").mkdir()
    assert go(after, **STEADY, **how_after) == [DONE] * after
    for path in (tmp_path / "before").iterdir():  # what both saw, in order, without overlap
        lines = (
            (tmp_path / "trace" / path.name).read_text()
            if (tmp_path / "trace" / path.name).exists()
            else ""
        )
        (tmp_path / "trace" / path.name).write_text(path.read_text() + lines)
    run = prepare(config)
    expected = [
        [":".join(run.dataset.shards.locate(i)) for i in run.sampler.batch_at(step).indices]
        for step in range(STEPS)
    ]
    assert samples_by_step(tmp_path / "trace") == expected
    rows = trace(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["batch"] for row in rows] == [len(names) for names in expected]
    for row, alone in zip(rows, trace(steady), strict=True):
        assert row["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    ours, theirs = (
        load_file(out / "checkpoints" / "final" / "model.safetensors")
        for out in (tmp_path / "run", steady)
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-2, atol=2e-3)


def test_a_finished_run_has_the_average_beside_the_weights(undisturbed: Path) -> None:
    final = load_file(undisturbed / "checkpoints" / "final" / "model.safetensors")
    average = load_file(undisturbed / "checkpoints" / "final-ema" / "model.safetensors")
    assert final.keys() == average.keys()
    assert any(not t.equal(average[name]) for name, t in final.items())
