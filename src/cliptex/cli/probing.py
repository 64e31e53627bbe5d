"""The options of `cliptex probe`, and how they become probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cliptex.probes.bank_config import BankConfig
    from cliptex.probes.cost import Job
    from cliptex.probes.examples import Examples
    from cliptex.probes.feature_store import FeatureStore
    from cliptex.results import Result

Layout = Literal["voc", "ade20k", "nyu-depth", "nyu-normals", "folder"]
Head = Literal["linear", "deeplabv3", "pspnet"]
Task = Literal["segmentation", "depth", "normals", "classification"]
TASK_OF: dict[Layout, Task] = {
    "voc": "segmentation",
    "ade20k": "segmentation",
    "nyu-depth": "depth",
    "nyu-normals": "normals",
    "folder": "classification",
}


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What `cliptex probe` understands.

    model: folder of a saved CLIP, `playroom`, `open_clip:NAME/TAG`, `timm:NAME/TAG`,
        `hf-hub:ORG/NAME`, `corenet:FILE`. Without TAG the weights are random, and rows say so.
    dataset: layout of the data set (see cliptex.datasets); folder is classification.
    root: where the data set lies.
    out: results file (JSON lines) to append to.
    name: how the model is called in the results; by default as `model`.
    recipe: fast trains linear heads on cached, standardised features of whole pictures at many
        rates; paper is Table 8: all heads on one encoder pass over augmented pictures.
    probe: heads of the paper recipe (classification has the linear one).
    lr: learning rates, chosen from away from the test set; by default the recipe's.
    seeds: of heads; one set of rows per head and seed.
    epochs, batch_size: instead of the recipe's.
    warmup_steps: instead of the paper recipe's.
    resolution: side in pixels that pictures are resized to; by default 512 (paper recipe for
        classification: 224).
    augmentation: of the paper recipe.
    train_split: what the probe learns from.
    val_split: what a learning rate is chosen on; by default a part of train.
    test_split: what is scored, once.
    state: folder in which the paper recipe saves what it did, to go on from after a kill.
    features: folder in which the paper recipe keeps features (needs --no-augmentation).
    features_dtype: how they are kept.
    features_gib: refuse to keep more than this.
    leak: mark the rows: an expert learnt from this data set. Done by itself where the model's
        folder says so (provenance.json).
    dry_run: only print images, steps, arithmetic, memory and GPU-hours of the paper recipe;
        without a data set, those of all probes of the paper.
    peak_tflops: of the GPU that --dry-run assumes.
    utilisation: share of it that is reached.
    """

    model: str
    dataset: Layout | None = None
    root: Path | None = None
    out: Path | None = None
    name: str | None = None
    recipe: Literal["fast", "paper"] = "fast"
    probe: tuple[Head, ...] = ("linear",)
    lr: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    batch_size: int | None = None
    warmup_steps: int | None = None
    resolution: int | None = None
    augmentation: bool = True
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "test"
    state: Path | None = None
    features: Path | None = None
    features_dtype: Literal["float16", "int8"] = "float16"
    features_gib: float = 20.0
    leak: bool = False
    dry_run: bool = False
    peak_tflops: float = 312.0
    utilisation: float = 0.35

    def asked(self) -> dict[str, Any]:
        """Values of the configuration that were given."""
        values = {"epochs": self.epochs, "batch_size": self.batch_size}
        values["resolution"] = self.resolution
        given: dict[str, Any] = {name: v for name, v in values.items() if v is not None}
        return {**given, "learning_rates": self.lr} if self.lr else given

    def bank(self, task: Task) -> BankConfig:
        """Table 8 for the task, with what was given instead."""
        from cliptex.probes.bank_config import BankConfig
        from cliptex.probes.table8 import paper_probes

        base = paper_probes(task, self.probe)
        changes = {**self.asked(), "seeds": self.seeds}
        if not self.augmentation:
            changes["augmentation"] = None
        if self.warmup_steps is not None:
            steps = {"warmup_steps": self.warmup_steps}
            changes["schedule"] = base.schedule.model_copy(update=steps)
        return BankConfig.model_validate({**dict(base), **changes})

    def splits(self) -> tuple[Any, Any, Any]:
        """The data sets of train, val (or None) and test."""
        if self.dataset is None or self.root is None:
            raise ValueError("a probe needs --dataset and --root (or --recipe paper --dry-run)")
        read, root = readers()[self.dataset], self.root
        val = None if self.val_split is None else read(root, self.val_split)
        return read(root, self.train_split), val, read(root, self.test_split)


def readers() -> dict[Layout, Callable[[Path, str], Any]]:
    """The reader of each layout."""
    from cliptex.datasets.ade20k import Ade20k
    from cliptex.datasets.folders import ImageFolder
    from cliptex.datasets.normals import NormalsFolder
    from cliptex.datasets.nyu import NyuDepth
    from cliptex.datasets.voc import VocSegmentation

    return {
        "voc": VocSegmentation,
        "ade20k": Ade20k,
        "nyu-depth": NyuDepth,
        "nyu-normals": NormalsFolder,
        "folder": ImageFolder,
    }


def fast_rows(options: ProbeOptions) -> list[Result]:
    """Linear heads on cached features, one probe per seed; the pictures are encoded once."""
    from cliptex.models.clip import load_clip
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.classification import run_classification_probe
    from cliptex.probes.config import ProbeConfig
    from cliptex.probes.dense import run_dense_probe
    from cliptex.probes.features import FeatureMemory

    if options.probe != ("linear",):
        raise ValueError("--probe: the fast recipe trains linear heads only; add --recipe paper")
    run = run_classification_probe if options.dataset == "folder" else run_dense_probe
    splits = options.splits()
    leak = options.leak or learnt_from(options.model, splits[2])
    encoder = FrozenEncoder(load_clip(options.model).image)
    memory = FeatureMemory(2 << 30) if len(options.seeds) > 1 else None
    rows = []
    for seed in options.seeds:
        config = ProbeConfig(seed=seed, **options.asked())
        names = {"model": options.name or options.model, "leak": leak}
        names["checkpoint"] = checkpoint_of(options.model)
        rows += run(encoder, *splits, config, memory=memory, **names).results
    return rows


def paper_rows(options: ProbeOptions) -> list[Result]:
    """All heads of Table 8 on one encoder pass per batch."""
    from cliptex.models.clip import load_clip
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.run_bank import Naming, Storage, run_bank

    train, val, test, config = _sets(options)
    naming = Naming(
        model=options.name or options.model,
        checkpoint=checkpoint_of(options.model),
        leak=options.leak or learnt_from(options.model, test),
    )
    storage = Storage(state=options.state, features=_store(options))
    encoder = FrozenEncoder(load_clip(options.model).image)
    outcomes = run_bank(encoder, train, val, test, config, naming=naming, storage=storage)
    return [row for outcome in outcomes for row in outcome.results]


def cost_text(options: ProbeOptions) -> str:
    """What --dry-run prints."""
    from cliptex.models.clip import load_clip
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.cost import Device, cost_of, cost_table

    device = Device(peak_tflops=options.peak_tflops, utilisation=options.utilisation)
    encoder = FrozenEncoder(load_clip(options.model).image)
    costs = [cost_of(job, encoder) for job in _jobs(options)]
    if options.dataset is None:
        from cliptex.probes.cost_detection import paper_detection_costs

        costs += paper_detection_costs(encoder)
    return f"{options.model}\n{cost_table(costs, device)}"


def _jobs(options: ProbeOptions) -> list[Job]:
    from dataclasses import replace

    from cliptex.probes.cost import Job, paper_jobs

    if options.dataset is None:
        return [replace(job, config=options.bank(job.task)) for job in paper_jobs()]
    train, _, test, config = _sets(options)
    job = Job(
        task=TASK_OF[options.dataset],
        dataset=train.name,
        train_images=len(train),
        test_images=len(test),
        outputs=train.task.channels,
        config=config,
    )
    return [job]


def _sets(options: ProbeOptions) -> tuple[Examples, Examples | None, Examples, BankConfig]:
    from cliptex.probes.examples import class_examples, dense_examples

    train, val, test = options.splits()
    assert options.dataset is not None
    config = options.bank(TASK_OF[options.dataset])
    make: Any = class_examples if options.dataset == "folder" else dense_examples
    held = None if val is None else make(val, config)
    return make(train, config), held, make(test, config), config


def _store(options: ProbeOptions) -> FeatureStore | None:
    from cliptex.probes.feature_store import FeatureStore

    if options.features is None:
        return None
    budget = round(options.features_gib * 2**30)
    return FeatureStore(options.features, options.features_dtype, budget)


def learnt_from(model: str, dataset: Any) -> bool:
    """Whether an expert behind `model` learnt from the images of `dataset`, as far as recorded."""
    from cliptex.models.provenance import read_provenance

    return dataset.name in read_provenance(model).learnt_from


def checkpoint_of(model: str) -> str:
    """sha256 of the weights file of a saved model, "random" for a name without weights, else ""."""
    from cliptex.files import sha256_file

    weights = Path(model) / "model.safetensors"
    if weights.is_file():
        return sha256_file(weights)
    scheme, _, rest = model.partition(":")
    named = scheme in ("open_clip", "timm") and "/" not in rest
    built = scheme == "corenet" and not Path(rest).exists()
    return "random" if named or built else ""
