"""Options of `cliptex probe` that would do nothing are refused, whatever the task and recipe."""

from pathlib import Path

import pytest

from cliptex.probes.options import ProbeOptions

DATA = {"root": Path(), "out": Path("r.jsonl")}
PAPER = {"recipe": "paper", "dataset": "voc", **DATA}
DRY = {"recipe": "paper", "dry_run": True}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {**PAPER, "features_dtype": "int8"},
            "`features_dtype`: it applies only with `features`; leave it",
        ),
        (
            {**PAPER, "features_gib": 1.0},
            "`features_gib`: it applies only with `features`; leave it out",
        ),
        (
            {**PAPER, "peak_tflops": (1.0, 1.0, 1.0)},
            "`peak_tflops`: it applies only with `dry_run`; leave it out",
        ),
        (
            {**PAPER, "utilisation": 0.5},
            "`utilisation`: it applies only with `dry_run`; leave it out",
        ),
        (
            {**PAPER, "features": Path("f")},
            "`features`: .* set `augmentation=False`, or leave it out",
        ),
        ({**PAPER, "scratch": Path("s")}, "`scratch`: the paper recipe writes to `state`"),
        ({**PAPER, "dry_run": True, "scratch": Path("s")}, "`scratch`: the paper recipe writes to"),
        ({**PAPER, "dataset": "coco", "scratch": Path("s")}, "`scratch`: the paper recipe writes"),
        ({**PAPER, "val_split": "v"}, "`val_split`: it chooses among several `lr`"),
        ({**PAPER, "val_split": "v", "lr": (1.0,)}, "`val_split`: it chooses among several `lr`"),
        ({**PAPER, "dataset": "coco", "val_split": "v"}, "`val_split`: it chooses among several"),
        ({**PAPER, "protocol": ("eigen",)}, "`protocol`: it applies only to depth; leave it out"),
        (
            {**PAPER, "dataset": "nyu-raw", "protocol": ("eigen-raw",)},
            "`protocol`: nyu-raw has one kind of depths",
        ),
        (
            {**PAPER, "dataset": "folder", "pictures": 1},
            "`pictures`: classification has nothing to draw",
        ),
        (
            {**PAPER, "dataset": "folder", "probe": ("ssd",)},
            "`probe`: classification supports only",
        ),
        ({**PAPER, "pictures": -1}, "`pictures`: -1 must not be negative"),
        ({**PAPER, "seeds": ()}, "`seeds` needs at least one value"),
        ({**PAPER, "seeds": (0, 1, 0)}, "`seeds`: 0 is given more than once"),
        ({**PAPER, "probe": ("linear", "linear")}, "`probe`: linear is given more than once"),
        ({"dataset": "voc", **DATA, "lr": (0.1, 0.1)}, "`lr`: 0.1 is given more than once"),
        ({**PAPER, "gpu": "h100"}, "`gpu`: it applies only with `dry_run`; leave it out"),
        ({**DRY, "peak_tflops": (1.0, 0.0, 1.0)}, "`peak_tflops`: 0 must be positive"),
        (
            {**DRY, "peak_tflops": (1.0, 1.0, 1.0), "gpu": "l4"},
            "`gpu`: `peak_tflops` says how fast",
        ),
        ({**DRY, "utilisation": 35.0}, "`utilisation`: 35 must be above 0 and at most 1"),
        ({**DRY, "root": Path("r")}, "`root`: without `dataset` the paper's own sets"),
        ({**DRY, "test_split": "v"}, "`test_split`: without `dataset` the paper's own"),
        ({**DRY, "extra_coco": Path("c")}, "`extra_coco`: without `dataset` the paper's own"),
        ({**DRY, "dataset": "voc"}, "a probe needs `dataset` and `root`"),
    ],
)
def test_refused(given, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        ProbeOptions(model="playroom", **given).check()


@pytest.mark.parametrize(
    "given",
    [
        {"dataset": "voc", **DATA, "scratch": Path("s"), "val_split": "v", "lr": (0.1,)},
        {**PAPER, "features": Path("f"), "features_gib": 1.0, "augmentation": False},
        {**PAPER, "recipe": "small", "features": Path("f"), "features_dtype": "int8"},
        {**PAPER, "val_split": "v", "lr": (0.1, 0.2), "pictures": 2, "controls": True},
        {**PAPER, "dataset": "nyu-depth", "protocol": ("lasinger", "eigen", "eigen-raw")},
        {
            **PAPER,
            **DRY,
            "peak_tflops": (67.0, 495.0, 989.0),
            "utilisation": 1.0,
            "state": Path("s"),
        },
        DRY,
    ],
)
def test_accepted(given):
    ProbeOptions(model="playroom", **given).check()
