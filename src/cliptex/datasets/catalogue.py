"""The layouts of data sets that commands read: one table, and one row per layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cliptex.datasets.check_report import Check

Task = Literal["segmentation", "depth", "normals", "classification", "detection", "retrieval"]
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a data set lies on disk or on a hub, what it is for, and who reads and checks it.

    Code is named as "module:name" and imported when it is needed, so that the table costs nothing
    where only names are wanted (help of commands).

    Args:
        name: what commands call the layout.
        task: what its ground truth is for.
        reader: opens a split, `reader(root, split, **options)`; a reader of `datasets.protocol`
            that fits the task; one of objects has an option `masks`, whether these are read. Where
            a split has several usual names, the reader also has a function `splits_of(root)` that
            gives those that are there.
        options: keyword arguments that the reader always gets.
        train: the split that is usually learnt from; of several names the first that is there.
        test: the split that is usually scored, likewise.
        benchmark: whose pictures the layout holds. A model with an expert that learnt from this
            benchmark gets its rows marked as leaks. "" where any set may come in this layout; it
            is then recognised by its name.
        known_as: pattern by which the benchmark is recognised in the names of such sets.
        counts: items of the release, by split, in the order in which a check reports them.
        source: where the files are to be had.
        check: a `Check` of the files; "" where there is none.
        checked_as: what `cliptex datasets check` calls it; by default `name`.
        depths: values of the reader's option `depths`, the first of which is scored by default.
        images: the reader has an option `images`, the folder of the pictures.
        hub: `root` may be the id of a data set on the Hugging Face hub.
    """

    name: str
    task: Task
    reader: str
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Names = ("train",)
    test: Names
    benchmark: str = ""
    known_as: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    check: str = ""
    checked_as: str = ""
    depths: Names = ()
    images: bool = False
    hub: bool = False

    def open(self, root: str | Path, split: str, **options: Any) -> Any:
        """The reader of one split at `root`; its errors are those of the reader."""
        return _named(self.reader)(root, split, **{**self.options, **options})

    def usual_splits(self, root: str | Path) -> tuple[str, str]:
        """The split to learn from and the one to score, of the set at `root`."""
        several = len(self.train) > 1 or len(self.test) > 1
        there = _named(self.reader).splits_of(Path(root)) if several else []
        return _first(self.train, there), _first(self.test, there)

    def require_root(self, root: Path) -> None:
        """FileNotFoundError where there is nothing at `root`, unless it may be a hub's id."""
        if not self.hub and not root.exists():
            raise FileNotFoundError(
                f"`root`: {root} does not exist: give the folder of the data set {self.name}"
            )

    def read_check(self) -> Check:
        """How the layout is checked; only of one that has a `check`."""
        return _named(self.check)


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _first(names: Names, there: list[str]) -> str:
    return next((name for name in names if name in there), names[0])


_ROWS = (
    Layout(
        name="voc",
        task="segmentation",
        reader="cliptex.datasets.voc:VocSegmentation",
        train=("train_aug", "train"),  # the paper's 10,582, where SBD is there
        test=("val", "test"),
        benchmark="voc",
        known_as=r"pascal-?voc|\bvoc-?20\d\d",
        counts={"train_aug": 10_582, "train": 1_464, "val": 1_449},
        source="VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012; for "
        "train_aug benchmark.tgz (SBD) from www2.eecs.berkeley.edu/Research/Projects/CS/vision/"
        "grouping/semantic_contours",
        check="cliptex.datasets.voc:CHECK",
    ),
    Layout(
        name="voc20",
        task="segmentation",
        reader="cliptex.datasets.voc:VocSegmentation",
        options={"background": "ignore", "name": "voc20"},
        train=("train_aug", "train"),
        test=("val", "test"),
        benchmark="voc",
    ),
    Layout(
        name="coco-voc",
        task="segmentation",
        reader="cliptex.datasets.coco_voc:CocoAsVoc",
        test=("val", "test"),
        benchmark="coco",
    ),
    Layout(
        name="ade20k",
        task="segmentation",
        reader="cliptex.datasets.ade20k:Ade20k",
        train=("training",),
        test=("validation",),
        benchmark="ade20k",
        known_as=r"ade-?20k|scene-?parse-?150",
        counts={"training": 20_210, "validation": 2_000},
        source="ADEChallengeData2016.zip from data.csail.mit.edu/places/ADEchallenge",
        check="cliptex.datasets.ade20k:CHECK",
    ),
    Layout(
        name="hub-voc",
        task="segmentation",
        reader="cliptex.datasets.hub:HubMasks",
        options={"scheme": "voc"},
        test=("val",),
        benchmark="voc",
        hub=True,
    ),
    Layout(
        name="hub-ade20k",
        task="segmentation",
        reader="cliptex.datasets.hub:HubMasks",
        options={"scheme": "ade20k"},
        test=("validation",),
        benchmark="ade20k",
        hub=True,
    ),
    Layout(
        name="nyu-depth",
        task="depth",
        reader="cliptex.datasets.nyu:NyuDepth",
        test=("test",),
        benchmark="nyu-depth",
        counts={"train": 795, "test": 654},
        source="nyu_depth_v2_labeled.mat from cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html, "
        "splits.mat from horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup",
        check="cliptex.datasets.nyu:CHECK",
        depths=("rawDepths", "depths"),
    ),
    Layout(
        name="nyu-raw",
        task="depth",
        reader="cliptex.datasets.nyu:NyuRaw",
        test=("test",),
        benchmark="nyu-depth",
        counts={"train": 24_231, "test": 654},
        source="sync.zip and the lists of train_test_inputs of github.com/cleinc/bts, or "
        "nyudepthv2.tar.gz of github.com/dwofk/fast-depth",
        check="cliptex.datasets.nyu:RAW_CHECK",
    ),
    Layout(
        name="hub-nyu-depth",
        task="depth",
        reader="cliptex.datasets.hub_nyu:HubNyuDepth",
        test=("val", "test"),  # tanganke/nyuv2 calls the 654 test pictures val
        benchmark="nyu-depth",
        hub=True,
    ),
    Layout(
        name="nyu-normals",
        task="normals",
        reader="cliptex.datasets.normals:NormalsFolder",
        test=("test",),
        benchmark="nyu-normals",
        counts={"train": 795, "test": 654},  # train may also be GeoNet's 30,907 frames
        source="the data of github.com/baegwangbin/surface_normal_uncertainty",
        check="cliptex.datasets.normals:CHECK",
    ),
    Layout(
        name="dsine-normals",
        task="normals",
        reader="cliptex.datasets.normals:DsineNormals",
        test=("test",),
        benchmark="nyu-normals",
        counts={"test": 654},
        source="dsine_eval.zip of github.com/baegwangbin/DSINE",
        check="cliptex.datasets.normals:DSINE_CHECK",
    ),
    Layout(
        name="geonet-normals",
        task="normals",
        reader="cliptex.datasets.normals:GeoNetNormals",
        test=("test",),
        benchmark="nyu-normals",
        counts={"train": 30_907, "test": 654},
        source="the training data and ground truth of github.com/xjqi/GeoNet, and "
        "nyu_depth_v2_labeled.mat from cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html",
        check="cliptex.datasets.normals:GEONET_CHECK",
    ),
    Layout(
        name="hub-nyu-normals",
        task="normals",
        reader="cliptex.datasets.hub_nyu:HubNyuNormals",
        test=("val", "test"),
        benchmark="nyu-normals",
        hub=True,
    ),
    Layout(
        name="folder",
        task="classification",
        reader="cliptex.datasets.folders:ImageFolder",
        test=("test", "val"),
    ),
    Layout(
        name="imagenet-flat",
        task="classification",
        reader="cliptex.datasets.imagenet:FlatImageNet",
        test=("val",),
        benchmark="imagenet",
        # ImageNet-V2, -A, -O, -R and -Sketch have other pictures
        known_as=r"ilsvrc|imagenette|imagewoof|imagenet(?!-?(v2|a|o|r|sketch)\b)",
        counts={"train": 1_281_167, "val": 50_000},
        source="ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz from image-net.org (login needed)",
        check="cliptex.datasets.imagenet:CHECK",
        checked_as="imagenet",  # with a folder per class it is the layout `folder`
    ),
    Layout(
        name="places365",
        task="classification",
        reader="cliptex.datasets.places:Places365",
        test=("val",),
        benchmark="places365",
        known_as=r"places-?365",
        counts={"train": 1_803_460, "val": 36_500},
        source="filelist_places365-standard.tar, places365standard_easyformat or train_256/"
        "val_256 archives from places2.csail.mit.edu/download.html",
        check="cliptex.datasets.places:CHECK",
    ),
    Layout(
        name="hub-classes",
        task="classification",
        reader="cliptex.datasets.hub:HubLabelled",
        test=("validation", "val", "test"),  # tests often lack answers
        hub=True,
    ),
    Layout(
        name="coco",
        task="detection",
        reader="cliptex.datasets.coco:CocoInstances",
        test=("val", "test"),
        benchmark="coco",
        known_as=r"\b(ms-?)?coco(\b|-?20\d\d)",
        counts={"train2017": 118_287, "val2017": 5_000},
        source="train2017.zip, val2017.zip and annotations_trainval2017.zip from "
        "cocodataset.org/#download",
        check="cliptex.datasets.coco:CHECK",
    ),
    Layout(
        name="hub-coco",
        task="detection",
        reader="cliptex.datasets.hub:HubCoco",
        test=("val", "test"),
        benchmark="coco",
        hub=True,
    ),
    Layout(
        name="karpathy",
        task="retrieval",
        reader="cliptex.datasets.captions:Karpathy",
        test=("test",),
        source="caption_datasets.zip from cs.stanford.edu/people/karpathy/deepimagesent; pictures "
        "from cocodataset.org, or by the form of shannon.cs.illinois.edu/DenotationGraph for "
        "Flickr30k",
        check="cliptex.datasets.captions:KARPATHY_CHECK",
        images=True,
    ),
    Layout(
        name="coco-captions",
        task="retrieval",
        reader="cliptex.datasets.captions:CocoCaptions",
        test=("val", "test"),
        benchmark="coco",
        counts={"train2017": 118_287, "val2017": 5_000, "train2014": 82_783, "val2014": 40_504},
        source="train2017.zip, val2017.zip and annotations_trainval2017.zip from "
        "cocodataset.org/#download",
        check="cliptex.datasets.captions:CHECK",
    ),
    Layout(
        name="hub-captions",
        task="retrieval",
        reader="cliptex.datasets.hub:HubCaptioned",
        test=("test",),
        hub=True,
    ),
)
LAYOUTS: dict[str, Layout] = {row.name: row for row in _ROWS}

# Benchmarks that only come in layouts that any set may come in, and how their names show.
OTHER_BENCHMARKS = {"flickr30k": r"flickr-?30k", "flickr8k": r"flickr-?8k"}


def names_of(*tasks: Task) -> Names:
    """The layouts of these tasks, in the order of the table; of all where none is named."""
    return tuple(name for name, row in LAYOUTS.items() if not tasks or row.task in tasks)


def checked() -> dict[str, Layout]:
    """The layouts that have a check, by the name that checks call them."""
    return {row.checked_as or row.name: row for row in LAYOUTS.values() if row.check}


def usual_splits(layout: str, root: Path) -> tuple[str, str]:
    """The split to learn from and the one to score, of a set of `layout` at `root`."""
    return LAYOUTS[layout].usual_splits(root)


def benchmark_of(layout: str, name: str) -> str:
    """The benchmark whose pictures a set of `layout` called `name` shows; `name` if unknown."""
    if layout in LAYOUTS and LAYOUTS[layout].benchmark:
        return LAYOUTS[layout].benchmark
    known = {row.benchmark: row.known_as for row in LAYOUTS.values() if row.known_as}
    words = name.lower().replace("_", "-")
    signs = {**known, **OTHER_BENCHMARKS}.items()
    return next((benchmark for benchmark, sign in signs if re.search(sign, words)), name)


def is_leak(layout: str, name: str, learnt_from: Iterable[str]) -> bool:
    """Whether a set of `layout` called `name` shows pictures of a benchmark in `learnt_from`.

    Benchmarks may be stated by the name of a layout or of a copy ("nyu-raw", "imagenet-1k").
    """
    return benchmark_of(layout, name) in {benchmark_of(one, one) for one in learnt_from}


def open_dataset(layout: str, root: Path, split: str, images: Path | None = None) -> Any:
    """The reader of a split of the set at `root`, whatever its task; of objects without masks.

    images: folder of the pictures of a Karpathy JSON; None looks for it beside the JSON.
        ValueError where another layout is given one.
    """
    row = LAYOUTS[layout]
    options: dict[str, Any] = {"masks": False} if row.task == "detection" else {}
    if images is not None:
        if not row.images:
            takers = ", ".join(name for name, other in LAYOUTS.items() if other.images)
            raise ValueError(
                f"`images`: only for the layout {takers}, and this is {layout}; leave it out"
            )
        options["images"] = images
    return row.open(root, split, **options)
