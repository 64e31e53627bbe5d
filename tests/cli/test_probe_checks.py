"""Options of `cliptex probe` that would do nothing are refused, whatever the task and recipe."""

from pathlib import Path

import pytest

from cliptex.cli.probe_checks import check_options
from cliptex.cli.probing import ProbeOptions

DATA = {"root": Path(), "out": Path("r.jsonl")}
PAPER = {"recipe": "paper", "dataset": "voc", **DATA}
DRY = {"recipe": "paper", "dry_run": True}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({**PAPER, "features_dtype": "int8"}, "--features-dtype: it is for --features; leave it"),
        ({**PAPER, "features_gib": 1.0}, "--features-gib: it is for --features; leave it out"),
        (
            {**PAPER, "peak_tflops": (1.0, 1.0, 1.0)},
            "--peak-tflops: it is for --dry-run; leave it out",
        ),
        ({**PAPER, "utilisation": 0.5}, "--utilisation: it is for --dry-run; leave it out"),
        ({**PAPER, "features": Path("f")}, "--features: .* add --no-augmentation, or leave it out"),
        ({**PAPER, "scratch": Path("s")}, "--scratch: the paper recipe writes to --state"),
        ({**PAPER, "dry_run": True, "scratch": Path("s")}, "--scratch: the paper recipe writes to"),
        ({**PAPER, "dataset": "coco", "scratch": Path("s")}, "--scratch: the paper recipe writes"),
        ({**PAPER, "val_split": "v"}, "--val-split: it chooses among several --lr"),
        ({**PAPER, "val_split": "v", "lr": (1.0,)}, "--val-split: it chooses among several --lr"),
        ({**PAPER, "dataset": "coco", "val_split": "v"}, "--val-split: it chooses among several"),
        ({**PAPER, "protocol": ("eigen",)}, "--protocol: it is for depth; leave it out"),
        ({**PAPER, "dataset": "nyu-raw", "protocol": ("eigen-raw",)}, "--protocol eigen-raw: nyu-"),
        ({**PAPER, "dataset": "folder", "pictures": 1}, "--pictures: classes have nothing to draw"),
        ({**PAPER, "dataset": "folder", "probe": ("ssd",)}, "--probe ssd: classification has li"),
        ({**PAPER, "pictures": -1}, "--pictures -1: give their number"),
        ({**PAPER, "seeds": ()}, "--seeds: name one at least"),
        ({**PAPER, "seeds": (0, 1, 0)}, "--seeds: 0 is named more than once"),
        ({**PAPER, "probe": ("linear", "linear")}, "--probe: linear is named more than once"),
        ({"dataset": "voc", **DATA, "lr": (0.1, 0.1)}, "--lr: 0.1 is named more than once"),
        ({**PAPER, "gpu": "h100"}, "--gpu: it is for --dry-run; leave it out"),
        ({**DRY, "peak_tflops": (1.0, 0.0, 1.0)}, "--peak-tflops 0: it must be positive"),
        ({**DRY, "peak_tflops": (1.0, 1.0, 1.0), "gpu": "l4"}, "--gpu: --peak-tflops says what it"),
        ({**DRY, "utilisation": 35.0}, "--utilisation 35: a share, above 0 and up to 1"),
        ({**DRY, "root": Path("r")}, "--root: the paper's own sets are counted where no --dataset"),
        ({**DRY, "test_split": "v"}, "--test-split: the paper's own sets are counted"),
        ({**DRY, "extra_coco": Path("c")}, "--extra-coco: the paper's own sets are counted"),
        ({**DRY, "dataset": "voc"}, "a probe needs --dataset and --root"),
    ],
)
def test_refused(given, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        check_options(ProbeOptions(model="playroom", **given))


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
    check_options(ProbeOptions(model="playroom", **given))
