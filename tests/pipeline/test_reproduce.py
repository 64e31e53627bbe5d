"""Every probe on both models, end to end on a handful of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.pipeline.demo import DemoConfig
from cliptex.pipeline.reproduce import ReproduceConfig, reproduce_stages
from cliptex.pipeline.stages import run_stages
from cliptex.playroom.export import HomeSizes
from cliptex.probes.config import DetectionConfig, FastConfig, Schedule
from cliptex.probes.recipes import TASKS, small, small_mask_rcnn, small_ssd
from cliptex.report.comparability import control_owner
from cliptex.results import CONTROLS, Result, read_results

HEADS = {"linear", "deeplabv3", "pspnet"}
DENSE = {
    ("segmentation", "miou", "playroom-voc"),
    ("segmentation", "miou", "playroom-ade"),
    ("depth", "absrel", "playroom-depth"),
    ("normals", "a30", "playroom-normals"),
}


def short(probe: DetectionConfig) -> DetectionConfig:
    schedule = probe.schedule.model_copy(update={"epochs": 1, "warmup_steps": 1})
    return probe.model_copy(update={"schedule": schedule, "batch_size": 4})


TINY = ReproduceConfig(
    demo=DemoConfig(
        web_images=20,
        home=HomeSizes(train=10, val=4, test=6, classes_train=24, classes_val=12, classes_test=12),
        steps=8,
        batch_size=8,
        probe=FastConfig(resolution=128, epochs=1, min_steps=0, learning_rates=(0.1,)),
    ),
    probes={
        task: small(task).model_copy(
            update={"epochs": 1, "width": 16, "batch_size": 4, "schedule": Schedule(lr=1e-3)}
        )
        for task in TASKS
    },
    detection=(short(small_mask_rcnn()), short(small_ssd())),
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    out = tmp_path_factory.mktemp("reproduce")
    run_stages(reproduce_stages(out, TINY, (0,), controls=True), out)
    assert "CLIPTeX" in (out / "report.html").read_text()
    return read_results(out / "results.jsonl")


@pytest.mark.parametrize("model", ["clip-ft", "cliptex"])
def test_reproduce__every_probe_has_a_row(rows: list[Result], model: str) -> None:
    found = {(r.task, r.metric, r.dataset, r.probe) for r in rows if r.model == model}
    assert found >= {(*row, head) for row in DENSE for head in HEADS}
    assert ("classification", "top1", "playroom-classes", "linear") in found
    assert ("zeroshot", "top1", "playroom-classes", None) in found
    detected = {(row[3], row[1]) for row in found if row[0] == "detection"}
    assert {probe for probe, _ in detected} == {"mask_rcnn", "ssd"}


@pytest.mark.parametrize("control", ["random-init", "pixels", "mean prediction"])
def test_reproduce__controls_stand_in_the_columns_of_every_head(
    rows: list[Result], control: str
) -> None:
    found = {(r.task, r.metric, r.dataset, r.probe) for r in rows if r.model == control}
    assert found >= {(*row, head) for row in DENSE for head in HEADS}
    assert ("classification", "top1", "playroom-classes", "linear") in found
    detected = {probe for task, _, _, probe in found if task == "detection"}
    assert detected == {"mask_rcnn", "ssd"}
    owners = {control_owner(r) for r in rows if r.model == control}
    assert owners == {"clip-ft" if control == "mean prediction" else "clip"}


def test_reproduce__models_are_told_apart(rows: list[Result]) -> None:
    probed = [row for row in rows if row.task == "depth" and row.probe]
    checkpoints = {row.checkpoint for row in probed if row.model not in CONTROLS}
    assert len(checkpoints) == 2 and all(checkpoints)


def test_reproduce_stages__the_page_waits_for_every_model_and_seed(tmp_path: Path) -> None:
    page = reproduce_stages(tmp_path, TINY, (0, 1))[-1]
    wanted = {f"all-probes-{model}-seed{n}" for model in ("clip-ft", "cliptex") for n in (0, 1)}
    assert wanted <= set(page.depends)
