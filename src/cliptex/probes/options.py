"""What can be asked of a probe: a data set, a recipe and changes of it, and what must not be asked.

It imports neither torch nor open_clip until configurations are made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cliptex.datasets.catalogue import LAYOUTS
from cliptex.datasets.catalogue import Task as AnyTask

if TYPE_CHECKING:
    from cliptex.probes.config import ProbeConfig
    from cliptex.probes.features import FeatureStore

DATA = ("root", "train_split", "val_split", "test_split", "extra_coco")
DETECTORS = ("mask-rcnn", "ssd")


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What `cliptex probe` understands.

    Args:
        model: folder of a saved CLIP, `playroom`, `open_clip:NAME/TAG`, `timm:NAME/TAG`,
            `hf-hub:ORG/NAME`, `corenet:FILE`. Without TAG the weights are random, and rows say so.
        output_stride: of a ResNet: 16 or 8 dilates its last one or two stages, for a finer map; by
            default the model's own, 32 where nothing else was saved.
        dataset: layout of the data set (see docs/datasets.md).
        root: folder of the data set.
        out: results file (JSON lines) to append to; what single images add goes to per_image beside
            it, for intervals in the report.
        name: name of the model in the results; by default that of `model`.
        recipe: fast trains linear heads on cached, standardised features of whole pictures at many
            rates; paper is Table 8: all heads on one encoder pass over augmented pictures; small is
            paper shortened to the playroom at 128 pixels.
        probe: heads (linear, deeplabv3, pspnet; coco: mask-rcnn, ssd); by default all of the
            recipe. Classification supports only linear.
        protocol: rules by which depth is scored, one set of rows each. lasinger: raw depths, no
            crop, below 10 m. eigen: in-painted depths within Eigen's crop, as is usual for
            supervised depth. eigen-raw: raw depths within it.
        lr: learning rates, one of which is chosen away from the test set; by default the recipe's.
        seeds: random seeds of the heads; each head and seed gives a set of rows.
        epochs: passes over the training split, instead of the recipe's; where the rate drops at
            epochs, these move in proportion.
        batch_size: images of a training step, instead of the recipe's.
        warmup_steps: steps of linear warm-up, instead of the recipe's; the fast recipe has none.
        resolution: side in pixels that pictures are resized to; by default 512 (paper recipe for
            classification: 224; small: 128).
        precision: number format of the encoder's pass. auto: bf16 on an NVIDIA GPU since Ampere,
            elsewhere the recipe's (fp32; bf16 for the small one's dense heads and classifier).
            tf32: coarser products of float32, which such GPUs do faster.
        head_precision: precision of the heads' matrix products; losses and metrics are float32.
        augmentation: random crops and flips of the paper recipe; without them, training sees whole
            pictures.
        train_split: what the probe learns from; by default the layout's usual one, as in
            docs/datasets.md.
        val_split: what one of several learning rates is chosen on; by default a part of train.
        test_split: what is scored, once; by default the layout's usual one.
        extra_coco: folder of COCO, whose train pictures a probe on voc learns from, too, as VOC's
            21 classes.
        state: folder in which the paper and small recipes save what they did, to go on from after
            a kill.
        features: folder in which features of dense and classification probes are kept, for a killed
            probe to go on from and any later one to use (paper: needs `augmentation=False`).
        features_dtype: storage dtype of cached features.
        features_gib: largest size of cached features, in GiB; more is refused.
        scratch: folder for features and labels of the fast recipe beyond 4 GiB, while it runs; by
            default the system's temporary one. Their size is said and refused where it does not
            fit.
        leak: mark the rows: an expert learnt from this data set. Done by itself where the model's
            folder says so (provenance.json).
        controls: also probe controls that have learnt nothing: the same architecture with random
            weights, mean colours with their places, and the mean answer.
        pictures: draw the predictions on so many test images, into the folder panels beside `out`,
            where the report finds them; models with the same `out` stand side by side.
        device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps. Under torchrun every
            process trains other heads and seeds of the paper and small recipes, on its own GPU.
        dry_run: only print images, steps, arithmetic, memory and GPU-hours of the paper or small
            recipe with the other options; without a data set, those of all probes of the paper.
        gpu: GPU that `dry_run` assumes.
        peak_tflops: peak TFLOP/s in fp32, tf32 and bf16 of a GPU that `gpu` does not list.
        utilisation: share of the peak that is reached.
    """

    model: str
    output_stride: Literal[8, 16, 32] | None = None
    dataset: str | None = None
    root: Path | None = None
    out: Path | None = None
    name: str | None = None
    recipe: Literal["fast", "paper", "small"] = "fast"
    probe: tuple[str, ...] = ()
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
    def task(self) -> AnyTask:
        """That of the data set; ValueError without one."""
        if self.dataset is None or self.root is None:
            raise ValueError("a probe needs `dataset` and `root` (or `recipe=paper` and `dry_run`)")
        return LAYOUTS[self.dataset].task

    @property
    def label(self) -> str:
        """What the model is called in rows."""
        return self.name or self.model

    def refuse(self, names: Iterable[str], why: str) -> None:
        """ValueError for the first of these options that was given: none is ignored in silence."""
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != field.default:
                no = "=False" if field.default is True else ""
                raise ValueError(f"`{field.name}{no}`: {why}; leave it out")

    def check(self) -> None:
        """ValueError for what no probe, or not one of this task and recipe, can do.

        A dry run refuses what the run would: it is the run's options with `dry_run`.
        """
        self._check_values()
        if not self.dry_run:
            self.refuse(("gpu", "peak_tflops", "utilisation"), "it applies only with `dry_run`")
        if self.features is None:
            self.refuse(("features_dtype", "features_gib"), "it applies only with `features`")
        if self.recipe == "fast":
            self._check_fast()
        else:
            self._check_other_recipes()
        if self.dataset is not None:
            self._check_task()
        elif self.dry_run:
            self.refuse(DATA, "without `dataset` the paper's own sets are counted")

    def _check_values(self) -> None:
        for name in ("probe", "lr", "seeds", "protocol"):
            values = getattr(self, name)
            if not values and name in ("seeds", "protocol"):
                raise ValueError(f"`{name}` needs at least one value")
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"`{name}`: {value} is given more than once")
        if self.pictures < 0:
            raise ValueError(f"`pictures`: {self.pictures} must not be negative")
        for peak in self.peak_tflops or ():
            if not 0 < peak < float("inf"):
                raise ValueError(f"`peak_tflops`: {peak:g} must be positive")
        if self.peak_tflops is not None:
            self.refuse(("gpu",), "`peak_tflops` says how fast the GPU is")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"`utilisation`: {self.utilisation:g} must be above 0 and at most 1")

    def _check_fast(self) -> None:
        if self.dry_run:
            raise ValueError("`dry_run` counts the other recipes; set `recipe=paper` or small")
        if self.dataset is not None and self.task == "detection":
            raise ValueError("`recipe`: detection has no fast recipe; set `recipe=paper` or small")
        if self.probe not in ((), ("linear",)):
            raise ValueError(
                "`probe`: the fast recipe trains only linear heads; set `recipe=paper`"
            )
        self.refuse(
            ("state", "warmup_steps", "augmentation"),
            "the fast recipe learns in minutes from features of whole pictures; what it can go on "
            "with after a kill are those of `features`",
        )

    def _check_other_recipes(self) -> None:
        self.refuse(("scratch",), f"the {self.recipe} recipe writes to `state` and `features`")
        if len(self.lr) < 2:
            self.refuse(("val_split",), "it chooses among several `lr`, and this recipe has one")
        if self.recipe == "paper" and self.augmentation and self.features is not None:
            raise ValueError(
                "`features`: stored features cannot be augmented; set `augmentation=False`, or "
                "leave it out"
            )

    def _check_task(self) -> None:
        assert self.dataset is not None
        task, heads = self.task, self.probe
        if task != "depth":
            self.refuse(("protocol",), "it applies only to depth")
        if not LAYOUTS[self.dataset].depths and "eigen-raw" in self.protocol:
            raise ValueError(
                f"`protocol`: {self.dataset} has one kind of depths, so that eigen-raw does not "
                "apply; set `protocol=eigen`"
            )
        if task == "classification":
            self.refuse(("pictures",), "classification has nothing to draw")
            if heads not in ((), ("linear",)):
                raise ValueError(
                    f"`probe`: classification supports only the linear head, not {heads[0]}"
                )
        if task == "detection":
            if unknown := [head for head in heads if head not in DETECTORS]:
                raise ValueError(
                    f"`probe`: detection supports {' and '.join(DETECTORS)}, not {unknown[0]}"
                )
            self._refuse_whole_pictures()
        else:
            self._refuse_detectors()

    def _refuse_whole_pictures(self) -> None:
        why = "detection probes learn from augmented pictures"
        self.refuse(("features", "augmentation"), why)

    def _refuse_detectors(self) -> None:
        if odd := [head for head in self.probe if head in DETECTORS]:
            raise ValueError(f"`probe`: {odd[0]} needs objects to learn from; set `dataset=coco`")

    def chosen_splits(self) -> tuple[str, str | None, str]:
        """The names of train, val (or None) and test: given, or the layout's usual ones.

        FileNotFoundError where there is nothing at `root`, unless it may be a hub's id; ValueError
        where two have one name.
        """
        assert self.dataset is not None and self.root is not None
        row = LAYOUTS[self.dataset]
        row.require_root(self.root)
        train, test = row.usual_splits(self.root)
        names = self.train_split or train, self.val_split, self.test_split or test
        if names[0] == names[2]:
            raise ValueError(
                f"`train_split` and `test_split` are both {names[2]!r}: set another `test_split`, "
                "since what was learnt from cannot be scored"
            )
        if names[1] in (names[0], names[2]):
            other = "test_split" if names[1] == names[2] else "train_split"
            raise ValueError(f"`val_split` and `{other}` are both {names[1]!r}: {HELD_OUT}")
        return names

    def split_names(self) -> dict[str, object]:
        """What rows say of where the pictures are from."""
        names = ("train_split", "val_split", "test_split")
        return dict(zip(names, self.chosen_splits(), strict=True))

    def read(self, split: str, **options: Any) -> Any:
        """One split of the data set; of several depths the first, unless asked otherwise."""
        assert self.dataset is not None and self.root is not None
        row = LAYOUTS[self.dataset]
        if row.depths:
            options = {"depths": row.depths[0], **options}
        if row.task == "detection":
            options["masks"] = self.probe != ("ssd",)
        return row.open(self.root, split, **options)

    def splits(self) -> tuple[Any, Any, Any]:
        """The data sets of train, val (or None) and test; ValueError where they share pictures, or
        one has nothing to learn from or to score."""
        from cliptex.metrics.scorers import crop_mask

        names = self.chosen_splits()
        val = None if names[1] is None else self.read(names[1])
        train, test = self.read(names[0]), self.read(names[2])
        _refuse_shared({"train_split": train, "val_split": val}, test)
        if empty := getattr(train, "empty", ()):
            raise ValueError(
                f"`train_split`: {empty[0]} holds no picture ({len(empty)} such class folders): "
                "complete it, or take the class out of all splits"
            )
        for protocol in self.protocols():
            if protocol.crop is not None:
                crop_mask(test[0].target, protocol.crop)
        return (train if self.extra_coco is None else self._with_coco(train)), val, test

    def _with_coco(self, voc: Any) -> Any:
        """VOC's training set, then COCO's of train; ValueError for other sets and classes."""
        from cliptex.datasets.coco_voc import CocoAsVoc, JoinedDense

        assert self.extra_coco is not None
        if voc.name != "voc":
            raise ValueError("`extra_coco`: it applies only to `dataset=voc`; leave it out")
        coco = CocoAsVoc(self.extra_coco, "train")
        if voc.kind != coco.kind:
            raise ValueError(
                f"`extra_coco`: `root` has {len(voc.kind.classes)} classes of its own (labels.txt),"
                f" COCO can be given only VOC's {len(coco.kind.classes)}; leave it out"
            )
        return JoinedDense([voc, coco])

    def truths(self) -> dict[str, Any]:
        """By protocol, the test split with the ground truth it means, unless that is the first."""
        depths = LAYOUTS[self.dataset].depths if self.dataset else ()
        wanted = {p.name: p.depths for p in self.protocols() if depths and p.depths != depths[0]}
        test = self.chosen_splits()[2]
        return {name: self.read(test, depths=depth) for name, depth in wanted.items()}

    def protocols(self) -> tuple[Any, ...]:
        """Rules by which depth is scored; none for other tasks."""
        from cliptex.metrics.scorers import DEPTH_PROTOCOLS

        if self.dataset is None or self.task != "depth":
            return ()
        return tuple(DEPTH_PROTOCOLS[name] for name in self.protocol)

    def configs(
        self, task: AnyTask | None = None, heads: Sequence[str] | None = None
    ) -> list[ProbeConfig]:
        """The recipe's probes for a task (that of the data set), with what was given instead."""
        from cliptex.probes.recipes import configs_of

        chosen: Any = self.task if task is None else task
        if chosen == "detection":
            self._refuse_whole_pictures()
        else:
            self._refuse_detectors()
        found = configs_of(self.recipe, chosen, tuple(self.probe if heads is None else heads))
        return [self._changed(config) for config in found]

    def _changed(self, config: ProbeConfig) -> ProbeConfig:
        """A longer or shorter probe has the drops of its rate in proportion."""
        from cliptex.probes.config import DetectionConfig, FastConfig, GroupConfig

        values = {"epochs": self.epochs, "batch_size": self.batch_size, **self.precisions()}
        values |= {"resolution": self.resolution, "learning_rates": self.lr or None}
        values |= {"protocols": self.protocols() or None, "scratch": self.scratch}
        changes: dict[str, Any] = {k: v for k, v in values.items() if v is not None}
        changes["seeds"] = self.seeds
        if isinstance(config, FastConfig):
            if self.epochs is not None:
                changes["min_steps"] = 0  # epochs that are asked for are not made more
            return type(config).model_validate({**dict(config), **changes})
        assert isinstance(config, GroupConfig | DetectionConfig)
        plan: dict[str, Any] = {}
        if self.warmup_steps is not None:
            plan["warmup_steps"] = self.warmup_steps
        if self.epochs is not None:
            share = self.epochs / config.epochs
            plan["milestones"] = tuple(round(share * e) for e in config.schedule.milestones)
        changes["schedule"] = config.schedule.model_copy(update=plan)
        if isinstance(config, DetectionConfig) and self.resolution is not None:
            changes["train_sizes"] = ()
        if isinstance(config, GroupConfig) and not self.augmentation:
            changes["augmentation"] = None
        return type(config).model_validate({**dict(config), **changes})

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

    def store(self) -> FeatureStore | None:
        """Where features are kept; None where they are not."""
        from cliptex.probes.features import FeatureStore

        if self.features is None:
            return None
        return FeatureStore(self.features, self.features_dtype, round(self.features_gib * 2**30))


HELD_OUT = "leave out `val_split`: the rate is then chosen on a held-out part of train"


def _refuse_shared(sets: dict[str, Any], test: Any) -> None:
    """ValueError where a set, named by its option, holds pictures of `test`.

    Only readers with `pictures` (see `datasets.protocol`) can tell; no picture is read.
    """
    held = set(getattr(test, "pictures", ()))
    for option, one in sets.items():
        shared = [picture for picture in getattr(one, "pictures", ()) if picture in held]
        if shared:
            remedy = HELD_OUT if option == "val_split" else "set a split without them"
            raise ValueError(
                f"`{option}` holds {len(shared)} of the {len(test)} pictures of `test_split`, such "
                f"as {shared[0]}: {remedy}"
            )
