"""The demo from end to end on a handful of pictures, and what its page and rows hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliptex.pipeline.demo import DemoConfig, demo_stages, home_suite
from cliptex.pipeline.stages import run_stages
from cliptex.playroom.export import HomeSizes
from cliptex.probes.config import FastConfig
from cliptex.results import read_results

TINY = DemoConfig(
    web_images=20,
    home=HomeSizes(train=10, val=4, test=6, classes_train=24, classes_val=12, classes_test=12),
    steps=8,
    batch_size=8,
    probe=FastConfig(resolution=128, epochs=1, min_steps=0, learning_rates=(0.1,)),
)
EXPECTED = {
    ("segmentation", "miou", "linear", "playroom-voc"),
    ("segmentation", "miou_things", "linear", "playroom-voc"),
    ("segmentation", "miou", "linear", "playroom-ade"),
    ("segmentation", "miou_things", "linear", "playroom-ade"),
    ("depth", "absrel", "linear", "playroom-depth"),
    ("normals", "a30", "linear", "playroom-normals"),
    ("classification", "top1", "linear", "playroom-classes"),
    ("zeroshot", "top1", None, "playroom-classes"),
    ("retrieval", "image_r1", None, "playroom-captions"),
    ("retrieval", "image_r5", None, "playroom-captions"),
    ("retrieval", "text_r1", None, "playroom-captions"),
    ("retrieval", "text_r5", None, "playroom-captions"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("demo")
    run_stages(demo_stages(out, TINY, controls=True, seeds=(0,)), out)
    yield out


def test_demo__every_model_has_every_row(run: Path) -> None:
    rows = read_results(run / "results.jsonl")
    models = {row.model for row in rows if not row.model.startswith("expert-")}
    assert models == {"clip", "clip-ft", "cliptex", "cliptex-perfect", "cliptex-placebo"}
    for model in models:
        found = {(r.task, r.metric, r.probe, r.dataset) for r in rows if r.model == model}
        assert found >= EXPECTED
    experts = {row.model for row in rows} - models
    assert experts == {"expert-segmentation", "expert-depth", "expert-normals"}


def test_demo__checkpoints_are_told_apart(run: Path) -> None:
    rows = read_results(run / "results.jsonl")
    by_model = {row.model: row.checkpoint for row in rows if row.task == "depth" and row.probe}
    assert len(set(by_model.values())) == 5 and all(by_model.values())


def test_demo__trainings_share_all_but_labels(run: Path) -> None:
    starts = {}
    for model in ("clip-ft", "cliptex", "cliptex-perfect", "cliptex-placebo"):
        lines = (run / f"train-{model}-seed0" / "log.jsonl").read_text().splitlines()
        starts[model] = json.loads(lines[0])
    assert all("loss_segmentation" in row for name, row in starts.items() if name != "clip-ft")
    assert "loss_segmentation" not in starts["clip-ft"]
    assert starts["cliptex"]["lr"] == starts["clip-ft"]["lr"]


def test_demo__page_stands_alone(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "CLIPTeX" in page and "data:image/png;base64" in page
    assert 'src="http' not in page and 'href="http' not in page
    assert len(list((run / "panels").glob("*.json"))) == 5  # labels and four dense data sets


def test_demo__second_run_does_nothing(run: Path) -> None:
    before = (run / "results.jsonl").stat().st_mtime_ns
    report = run_stages(demo_stages(run, TINY, controls=True, seeds=(0,)), run)
    assert not any(stage.ran for stage in report.times)
    assert (run / "results.jsonl").stat().st_mtime_ns == before


def test_home_suite__splits_do_not_overlap(run: Path) -> None:
    suite = home_suite(run / "home", TINY.probe)
    for splits in suite.dense:
        assert splits.val is not None
        pictures = [
            {part[i].image.tobytes() for i in range(len(part))}
            for part in (splits.train, splits.val, splits.test)
        ]
        assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2]
        assert not pictures[1] & pictures[2]
