from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cliptex.results import Result, append_results

NUMBERS = {  # (task, dataset, metric, better): {model: values of seeds 0, 1, 2}
    ("segmentation", "playroom-voc", "miou_things", "higher"): {
        "clip": (20.0, 20.0, 20.0),
        "clip-ft": (20.0, 22.0, 24.0),
        "cliptex": (24.0, 27.0, 30.0),
        "cliptex-perfect": (30.0, 32.0, 34.0),
        "cliptex-placebo": (21.0, 22.0, 24.0),
    },
    ("depth", "playroom-depth", "absrel", "lower"): {
        "clip": (0.5, 0.5, 0.5),
        "clip-ft": (0.4, 0.4, 0.4),
        "cliptex": (0.3, 0.32, 0.34),
        "cliptex-perfect": (0.24, 0.24, 0.24),
        "cliptex-placebo": (0.42, 0.42, 0.42),
    },
    ("zeroshot", "playroom-classes", "top1", "higher"): {
        "clip": (50.0, 50.0, 50.0),
        "clip-ft": (55.0, 56.0, 57.0),
        "cliptex": (56.0, 55.0, 57.0),
    },
}


@pytest.fixture
def make_row() -> Callable[..., Result]:
    """A result row where only what matters to the test is given."""

    def make(model: str, value: float, **other) -> Result:
        base = {"task": "depth", "dataset": "d", "metric": "absrel", "better": "lower", "n": 9}
        return Result(model=model, value=value, **(base | other))

    return make


@pytest.fixture
def rows() -> list[Result]:
    """Five models, three seeds, three measures, with values that are easy to work by hand."""
    found = []
    for (task, dataset, metric, better), models in NUMBERS.items():
        for model, values in models.items():
            found += [
                Result(
                    model=model,
                    task=task,
                    dataset=dataset,
                    metric=metric,
                    better=better,
                    value=value,
                    n=300,
                    seed=seed,
                    probe=None if task == "zeroshot" else "linear",
                    protocol={"resolution": 128},
                )
                for seed, value in enumerate(values)
            ]
    return found


@pytest.fixture
def run_folder(tmp_path: Path, rows: list[Result]) -> Path:
    """A run folder with every part that a report can show."""
    folder = tmp_path / "run"
    expert = rows[0].model_copy(update={"model": "expert-segmentation", "value": 61.25})
    append_results(folder / "results.jsonl", [*rows, expert])
    (folder / "panels").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (4, 4), (9, 99, 199)).save(folder / f"panels/{name}.png")
    panel = {"title": "Some <samples>", "columns": ["image", "truth"], "rows": [["a.png", "b.png"]]}
    (folder / "panels/panel.json").write_text(json.dumps(panel))
    (folder / "train").mkdir()
    lines = [{"step": s, "loss": 2.0 - s, "loss_clip": 1.0, "lr": 0.1} for s in (0, 1)]
    log = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train/log.jsonl").write_text(log)
    stage = {"key": "k", "config": {"steps": 77}, "attempts": 1}
    (folder / "train/stage.json").write_text(json.dumps(stage))
    done = {"key": "k", "seconds": 12.5, "attempts": 1}
    (folder / "train/done.json").write_text(json.dumps(done))
    return folder
