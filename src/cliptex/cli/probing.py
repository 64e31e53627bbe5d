"""The options of `cliptex probe`, and how they become probes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cliptex.cli.layouts import DETECTORS, Head, Layout, Task
from cliptex.datasets.catalogue import LAYOUTS

if TYPE_CHECKING:
    from cliptex.probes.bank_config import BankConfig
    from cliptex.probes.examples import Examples
    from cliptex.probes.feature_store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What `cliptex probe` understands.

    Args:
        model: folder of a saved CLIP, `playroom`, `open_clip:NAME/TAG`, `timm:NAME/TAG`,
            `hf-hub:ORG/NAME`, `corenet:FILE`. Without TAG the weights are random, and rows say so.
        output_stride: of a ResNet: 16 or 8 dilates its last one or two stages, for a finer map; by
            default the model's own, 32 where nothing else was saved.
        dataset: layout of the data set (see docs/datasets.md).
        root: where the data set lies.
        out: results file (JSON lines) to append to; what single images add goes to per_image beside
            it, for intervals in the report.
        name: how the model is called in the results; by default as `model`.
        recipe: fast trains linear heads on cached, standardised features of whole pictures at many
            rates; paper is Table 8: all heads on one encoder pass over augmented pictures; small is
            paper shortened to the playroom at 128 pixels.
        probe: heads; by default all of the recipe. Classification has linear, detection (coco) has
            mask-rcnn and ssd.
        protocol: rules by which depth is scored, one set of rows each. lasinger: raw depths, no
            crop, below 10 m. eigen: in-painted depths within Eigen's crop, as is usual for
            supervised depth. eigen-raw: raw depths within it.
        lr: learning rates, one of which is chosen away from the test set; by default the recipe's.
        seeds: of heads; one set of rows per head and seed.
        epochs: instead of the recipe's; where the rate drops at epochs, these move in proportion.
        batch_size: instead of the recipe's.
        warmup_steps: instead of the recipe's; not of the fast one.
        resolution: side in pixels that pictures are resized to; by default 512 (paper recipe for
            classification: 224; small: 128).
        precision: of the encoder's pass. auto: bf16 on an NVIDIA GPU since Ampere, elsewhere the
            recipe's (fp32; bf16 for the small one's dense heads and classifier). tf32: coarser
            products of float32, which such GPUs do faster.
        head_precision: of the heads' products. Losses and metrics are float32.
        augmentation: of the paper recipe; without it, training sees whole pictures.
        train_split: what the probe learns from; by default the layout's usual one, as in
            docs/datasets.md.
        val_split: what one of several learning rates is chosen on; by default a part of train.
        test_split: what is scored, once; by default the layout's usual one.
        extra_coco: folder of COCO, whose train pictures a probe on voc learns from, too, as VOC's
            21 classes.
        state: folder in which the paper and small recipes save what they did, to go on from after
            a kill.
        features: folder in which features of dense and classification probes are kept, for a killed
            probe to go on from and any later one to use (paper: needs --no-augmentation).
        features_dtype: how they are kept.
        features_gib: refuse to keep more than this.
        scratch: folder for features and labels of the fast recipe beyond 4 GiB, while it runs; by
            default the system's temporary one. Their size is said and refused where it does not
            fit.
        leak: mark the rows: an expert learnt from this data set. Done by itself where the model's
            folder says so (provenance.json).
        controls: also probe what has learnt nothing: the same architecture with random weights,
            mean colours with their places, and the mean answer.
        pictures: draw the predictions on so many test images, into the folder panels beside `out`,
            where the report finds them; models with the same `out` stand side by side.
        device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps. Under torchrun every
            process trains other heads and seeds of the paper and small recipes, on its own GPU.
        dry_run: only print images, steps, arithmetic, memory and GPU-hours of the paper or small
            recipe with the other options; without a data set, those of all probes of the paper.
        gpu: that --dry-run assumes.
        peak_tflops: of a GPU that is none of these: in fp32, tf32 and bf16.
        utilisation: share of it that is reached.
    """

    model: str
    output_stride: Literal[8, 16, 32] | None = None
    dataset: Layout | None = None
    root: Path | None = None
    out: Path | None = None
    name: str | None = None
    recipe: Literal["fast", "paper", "small"] = "fast"
    probe: tuple[Head, ...] = ()
    protocol: tuple[Literal["lasinger", "eigen", "eigen-raw"], ...] = ("lasinger",)
    lr: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    batch_size: int | None = None
    warmup_steps: int | None = None
    resolution: int | None = None
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    head_precision: Literal["fp32", "tf32"] = "fp32"
    augmentation: bool = True
    train_split: str | None = None
    val_split: str | None = None
    test_split: str | None = None
    extra_coco: Path | None = None
    state: Path | None = None
    features: Path | None = None
    features_dtype: Literal["float16", "int8"] = "float16"
    features_gib: float = 20.0
    scratch: Path | None = None
    leak: bool = False
    controls: bool = False
    pictures: int = 0
    device: str = "auto"
    dry_run: bool = False
    gpu: Literal["a100", "h100", "h200", "l40s", "l4", "rtx4090"] = "a100"
    peak_tflops: tuple[float, float, float] | None = None
    utilisation: float = 0.35

    @property
    def task(self) -> Task:
        """That of the data set; ValueError without one."""
        if self.dataset is None or self.root is None:
            raise ValueError("a probe needs --dataset and --root (or --recipe paper --dry-run)")
        return LAYOUTS[self.dataset].task  # type: ignore[return-value]

    def refuse(self, names: Iterable[str], why: str) -> None:
        """ValueError for the first of these options that was given: none is ignored in silence."""
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                no = "no-" if field.default is True else ""
                raise ValueError(f"--{no}{field.name.replace('_', '-')}: {why}; leave it out")

    def chosen_splits(self) -> tuple[str, str | None, str]:
        """The names of train, val (or None) and test: given, or the layout's usual ones."""
        from cliptex.cli.splits import require_root
        from cliptex.datasets.catalogue import usual_splits

        assert self.dataset is not None and self.root is not None
        require_root(self.dataset, self.root)
        train, test = usual_splits(self.dataset, self.root)
        return self.train_split or train, self.val_split, self.test_split or test

    def split_names(self) -> dict[str, object]:
        """What rows say of where the pictures are from."""
        names = ("train_split", "val_split", "test_split")
        return dict(zip(names, self.chosen_splits(), strict=True))

    def asked_fast(self) -> dict[str, Any]:
        """`asked`, of the fast recipe: epochs that are asked for are not made more."""
        few = {} if self.epochs is None else {"min_steps": 0}
        return {**self.asked(), **few}

    def asked(self) -> dict[str, Any]:
        """Values of the configuration that were given, and how depth is scored."""
        from cliptex.probes.protocol import DEPTH_PROTOCOLS

        values: dict[str, Any] = {"epochs": self.epochs, "batch_size": self.batch_size}
        values |= {"resolution": self.resolution, **self.precisions()}
        given = {name: value for name, value in values.items() if value is not None}
        if self.lr:
            given["learning_rates"] = self.lr
        if self.dataset is not None and self.task == "depth":
            given["protocols"] = tuple(DEPTH_PROTOCOLS[name] for name in self.protocol)
        return given

    def precisions(self) -> dict[str, Any]:
        """Of the encoder (None: the recipe's) and of heads; of a dry run those on its GPU.

        ValueError for what the device does not have.
        """
        from cliptex.models.device import pick_device, pick_precision, require_tf32

        found: dict[str, Any] = {"head_precision": self.head_precision}
        if self.dry_run:
            return {**found, "precision": "bf16" if self.precision == "auto" else self.precision}
        device = pick_device(self.device)
        if self.head_precision == "tf32":
            require_tf32("head_precision", device)
        return {**found, "precision": pick_precision(self.precision, device)}

    def bank(self, task: Task) -> BankConfig:
        """The recipe for the task, with what was given instead."""
        from cliptex.probes.bank_config import BankConfig
        from cliptex.probes.small import small_probes
        from cliptex.probes.table8 import paper_probes

        odd = [head for head in self.probe if head in DETECTORS]
        if odd:
            raise ValueError(f"--probe {odd[0]}: it needs objects to learn from (--dataset coco)")
        recipe: Any = small_probes if self.recipe == "small" else paper_probes
        base = recipe(task, self.probe) if self.probe else recipe(task)
        changes = {**self.asked(), "seeds": self.seeds}
        if not self.augmentation:
            changes["augmentation"] = None
        if self.warmup_steps is not None:
            steps = {"warmup_steps": self.warmup_steps}
            changes["schedule"] = base.schedule.model_copy(update=steps)
        return BankConfig.model_validate({**dict(base), **changes})

    def read(self, split: str, **options: Any) -> Any:
        """One split of the data set; of several depths the first, unless asked otherwise."""
        from cliptex.datasets.catalogue import LAYOUTS

        assert self.dataset is not None and self.root is not None
        row = LAYOUTS[self.dataset]
        if row.depths:
            options = {"depths": row.depths[0], **options}
        if row.task == "detection":
            options["masks"] = self.probe != ("ssd",)
        return row.open(self.root, split, **options)

    def splits(self) -> tuple[Any, Any, Any]:
        """The data sets of train, val (or None) and test; ValueError where they share pictures."""
        from cliptex.cli.splits import (
            refuse_bare,
            refuse_crops,
            refuse_equal,
            refuse_shared,
            with_coco,
        )

        assert self.task
        names = self.chosen_splits()
        refuse_equal(*names)
        val = None if names[1] is None else self.read(names[1])
        train, test = self.read(names[0]), self.read(names[2])
        refuse_shared({"--train-split": train, "--val-split": val}, test)
        refuse_bare(train)
        refuse_crops(test, self.asked().get("protocols", ()))
        if self.extra_coco is not None:
            train = with_coco(train, self.extra_coco)
        return train, val, test

    def truths(self) -> dict[str, Any]:
        """By protocol, the test split with the ground truth it means, unless that is the first."""
        from cliptex.datasets.catalogue import LAYOUTS

        depths = LAYOUTS[self.dataset].depths if self.dataset else ()
        if not depths:
            return {}
        wanted = {p.name: p.depths for p in self.asked()["protocols"]}
        test = self.chosen_splits()[2]
        return {n: self.read(test, depths=d) for n, d in wanted.items() if d != depths[0]}


def example_sets(
    options: ProbeOptions,
) -> tuple[Examples, Examples | None, Examples, BankConfig]:
    """Train, val (or None) and test as the paper recipe reads them, and its configuration."""
    from cliptex.probes.examples import class_examples, dense_examples

    train, val, test = options.splits()
    config = options.bank(options.task)
    if options.task == "classification":
        held = None if val is None else class_examples(val, config)
        return class_examples(train, config), held, class_examples(test, config), config
    held = None if val is None else dense_examples(val, config)
    scored = dense_examples(test, config, options.truths())
    return dense_examples(train, config), held, scored, config


def feature_store(options: ProbeOptions) -> FeatureStore | None:
    """Where features are kept; None where they are not."""
    from cliptex.probes.feature_store import FeatureStore

    if options.features is None:
        return None
    budget = round(options.features_gib * 2**30)
    return FeatureStore(options.features, options.features_dtype, budget)


def learnt_from(model: str, layout: str, dataset: Any) -> bool:
    """Whether an expert behind `model` learnt from the images of `dataset`, as far as recorded."""
    from cliptex.datasets.catalogue import benchmark_of
    from cliptex.models.config import read_provenance

    learnt = {benchmark_of(name, name) for name in read_provenance(model).learnt_from}
    return benchmark_of(layout, dataset.name) in learnt
