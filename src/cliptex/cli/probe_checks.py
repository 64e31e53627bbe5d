"""Options of `cliptex probe` that fit nothing, or would change nothing, are refused in one line."""

from __future__ import annotations

from cliptex.cli.probing import ProbeOptions
from cliptex.datasets.catalogue import LAYOUTS

DATA = ("root", "train_split", "val_split", "test_split", "extra_coco")


def check_options(options: ProbeOptions) -> None:
    """ValueError for what no probe, or not one of this task and recipe, can do.

    A dry run refuses what the run would: it is typed by adding --dry-run to the run's options.
    """
    _check_values(options)
    if not options.dry_run:
        options.refuse(("gpu", "peak_tflops", "utilisation"), "it is for --dry-run")
    if options.features is None:
        options.refuse(("features_dtype", "features_gib"), "it is for --features")
    if options.recipe != "fast":
        _check_bank(options)
    if options.dataset is not None:
        _check_task(options)
    elif options.dry_run:
        options.refuse(DATA, "the paper's own sets are counted where no --dataset is named")


def _check_values(options: ProbeOptions) -> None:
    for name in ("probe", "lr", "seeds", "protocol"):
        values = getattr(options, name)
        if not values and name in ("seeds", "protocol"):
            raise ValueError(f"--{name}: name one at least, or leave it out")
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"--{name}: {value} is named more than once")
    if options.pictures < 0:
        raise ValueError(f"--pictures {options.pictures}: give their number, or leave it out")
    for peak in options.peak_tflops or ():
        if not 0 < peak < float("inf"):
            raise ValueError(f"--peak-tflops {peak:g}: it must be positive")
    if options.peak_tflops is not None:
        options.refuse(("gpu",), "--peak-tflops says what it does")
    if not 0 < options.utilisation <= 1:
        raise ValueError(f"--utilisation {options.utilisation:g}: a share, above 0 and up to 1")


def _check_bank(options: ProbeOptions) -> None:
    """Of the paper and small recipes."""
    options.refuse(("scratch",), f"the {options.recipe} recipe writes to --state and --features")
    if len(options.lr) < 2:
        options.refuse(("val_split",), "it chooses among several --lr, and this recipe has one")
    if options.recipe == "paper" and options.augmentation and options.features is not None:
        raise ValueError(
            "--features: stored features cannot be augmented; add --no-augmentation, or leave it "
            "out"
        )


def _check_task(options: ProbeOptions) -> None:
    if options.task != "depth":
        options.refuse(("protocol",), "it is for depth")
    assert options.dataset is not None
    if not LAYOUTS[options.dataset].depths and "eigen-raw" in options.protocol:
        raise ValueError(
            f"--protocol eigen-raw: {options.dataset} has one kind of depths; name eigen"
        )
    if options.task == "classification":
        options.refuse(("pictures",), "classes have nothing to draw")
        if options.probe not in ((), ("linear",)):
            raise ValueError(f"--probe {options.probe[0]}: classification has linear alone")
