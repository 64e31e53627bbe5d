"""`cliptex label verify`, `score`, `agreement`, `plan` and `adopt`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg
from cliptex.cli.expert_options import (
    NO_OPTIONS,
    Confidence,
    ExpertArgs,
    load_experts,
    load_one,
)
from cliptex.cli.help import verb
from cliptex.cli.label_data import check_share, tell_losses, whole_shards
from cliptex.cli.layouts import DenseLayout
from cliptex.cli.rows import check_writable
from cliptex.console import MAX_FAILURES
from cliptex.datasets.catalogue import LAYOUTS

if TYPE_CHECKING:
    from cliptex.labelling.adopt import Form
    from cliptex.labelling.score import KeyedDataset


@dataclass(frozen=True)
class ToleranceOptions:
    """How far a label that is inferred anew may lie from the stored one.

    Args:
        equal: least share of pixels of the same class, or of the same validity.
        scalar: largest difference of depth as a share of the image's range.
        degrees: largest mean angle between normals.
    """

    equal: float = 0.99
    scalar: float = 0.01
    degrees: float = 1.0


AS_DEFAULT = ToleranceOptions()


@verb(
    "cliptex label verify runs/demo/labels/playroom-depth --data runs/demo/web/shards",
    "cliptex label verify runs/demo/labels/playroom-depth"
    " --data runs/demo/web/shards --sample 20 --expert playroom:depth",
    first="data sample expert weights device precision batch_size seed",
)
def verify(
    labels: Positional[AnyPathArg],
    /,
    data: AnyPathArg,
    sample: int = 0,
    expert: str | None = None,
    loading: ExpertArgs = NO_OPTIONS,
    batch_size: int = 8,
    tolerance: ToleranceOptions = AS_DEFAULT,
    seed: int = 0,
) -> None:
    """Check one expert's labels: hashes, counts, keys, and a random sample; fails on a problem.

    Args:
        labels: LABELS/EXPERT, the folder of one expert's labels.
        data: the image-text shards that were labelled.
        sample: images whose label is inferred anew and compared; needs --expert.
        expert: the expert that made the labels, as `cliptex label run` takes it.
        loading: as the run had them.
        batch_size: images per call of the expert.
        tolerance: of the sample.
        seed: which labels are drawn.
    """
    from cliptex.labelling.verify import verify_labels
    from cliptex.labels.kinds import Tolerance
    from cliptex.shards.dataset import ImageTextShards

    report = verify_labels(
        ImageTextShards(data, on_damaged="leave out"),
        labels,
        sample=sample,
        expert=load_one(expert, loading) if expert and sample else None,
        batch_size=batch_size,
        seed=seed,
        tolerance=Tolerance(**asdict(tolerance)),
    )
    print(report)
    if not report.ok:
        raise SystemExit(1)


@verb(
    "cliptex label score --root runs/demo/home/nyu --dataset-kind nyu-depth"
    " --split test --expert playroom:depth",
    "cliptex label score --root VOCdevkit --dataset-kind voc"
    " --expert deeplab_voc21 --weights models --out results.jsonl",
    first="root dataset_kind split expert labels weights device batch_size out",
)
def score(
    root: Path,
    dataset_kind: DenseLayout,
    split: str = "val",
    expert: str | None = None,
    loading: ExpertArgs = NO_OPTIONS,
    labels: AnyPathArg | None = None,
    batch_size: int = 8,
    out: Path | None = None,
) -> None:
    """Measure an expert, or stored labels, against a benchmark in its real layout.

    Args:
        root: where the benchmark lies.
        dataset_kind: layout of the benchmark (see docs/datasets.md).
        split: which of its splits.
        expert: as `cliptex label run` takes it; or give --labels.
        loading: where the expert runs, and what is said about it.
        labels: LABELS/EXPERT, labels of the benchmark's pictures, keyed by their file stems (as in
            a plain tar of them); those of nyu-depth by their number in the MATLAB file from 0, in
            six digits.
        batch_size: pictures per call of the expert.
        out: results.jsonl to append the rows to.
    """
    from cliptex.labelling.score import describe_scores, score_expert_on, score_store_on
    from cliptex.labels.reader import LabelReader
    from cliptex.results import append_results

    if (expert is None) == (labels is None):
        raise ValueError("say what to score: either --expert or --labels")
    if out is not None:
        check_writable(out)
    dataset = _dataset(dataset_kind, root, split, labels is not None)
    if expert is not None:
        rows = score_expert_on(dataset, load_one(expert, loading), batch_size=batch_size)
    else:
        assert labels is not None
        rows = score_store_on(dataset, LabelReader(labels))
    print(describe_scores(rows))
    if out is not None:
        append_results(out, rows)
        print(out)


@verb(
    "cliptex label agreement --depth runs/demo/labels/playroom-depth"
    " --normals runs/demo/labels/playroom-normals --data runs/demo/web/shards",
    "cliptex label agreement --depth labels/dpt-large --normals labels/nll-angmf"
    " --data shards --rows agreement.jsonl",
)
def agreement(
    depth: AnyPathArg,
    normals: AnyPathArg,
    data: AnyPathArg,
    view: float = 55.0,
    out: AnyPathArg | None = None,
    rows: Path | None = None,
) -> None:
    """Compare normals that follow from depth labels with normals labels; no truth is needed.

    Args:
        depth: LABELS/EXPERT, the folder of one expert's depth or disparity labels.
        normals: LABELS/EXPERT, that of one expert's normals.
        data: the image-text shards that were labelled.
        view: field of view along the images' longer side, in degrees.
        out: folder of label stores for copies of both, with the agreement as their confidence.
        rows: file to write, a JSON line per image.
    """
    from cliptex.labelling.agreement import agreements, describe, store_agreements, summarise
    from cliptex.labels.reader import LabelReader

    shards, first, second = whole_shards(data), LabelReader(depth), LabelReader(normals)
    if out is None:
        found = agreements(shards, first, second, view=view)
    else:
        found = store_agreements(shards, first, second, out, view=view)
    print(describe(*summarise(found, rows), first.kind))
    for path in (out, rows):
        if path is not None:
            print(path)


@verb(
    "cliptex label plan --data runs/demo/web/shards --expert playroom:depth",
    "cliptex label plan --data shards --expert hub-depth:Intel/dpt-large --count 64 --device cuda",
    first="data expert count weights device precision batch_size max_side codec confidence",
)
def plan(
    data: AnyPathArg,
    expert: tuple[str, ...],
    loading: ExpertArgs = NO_OPTIONS,
    count: int = 16,
    batch_size: int = 8,
    max_side: int = 512,
    codec: tuple[str, ...] = (),
    confidence: Confidence = "own",
) -> None:
    """Label a few images, and say what the whole data set will cost; nothing is kept.

    Experts label in one pass, as in a run. Of each kind of label, all codecs are compared.

    Args:
        data: folder of image-text shards, or one tar.
        expert: one or more experts, as `cliptex label run` takes them.
        loading: where the experts run, and what is said about them.
        count: images to label.
        batch_size: images per call of an expert.
        max_side: longest side in pixels of what is stored.
        codec: instead of the default codecs, as `cliptex label run` takes them.
        confidence: as `cliptex label run` takes it.
    """
    from cliptex.labelling.options import LabelOptions
    from cliptex.labelling.plan import plan_labels

    print(
        plan_labels(
            whole_shards(data),
            load_experts(expert, loading, confidence),
            LabelOptions(batch_size=batch_size, max_side=max_side, codec=codec),
            count=count,
        )
    )


@verb(
    "cliptex label adopt --data shards --source depth_pngs --out labels"
    ' --name my-depth --origin "my model" --form depth --scale 0.001 --unit m',
    "cliptex label adopt --data shards --source class_pngs --out labels"
    ' --name my-classes --origin "my model" --form classes --classes names.txt',
    first="data source out name origin form classes scale unit frame",
)
def adopt(
    data: AnyPathArg,
    source: AnyPathArg,
    out: AnyPathArg,
    name: str,
    origin: str,
    form: Literal["classes", "depth", "normals"],
    classes: Path | None = None,
    ignore: int = 255,
    scale: float | None = None,
    unit: Literal["m", "1/m", "relative disparity"] | None = None,
    invalid: int = 0,
    frame: str | None = None,
    licence: str = "",
    learnt_from: tuple[str, ...] = (),
    max_side: int = 512,
    codec: str | None = None,
    max_failures: float = MAX_FAILURES,
) -> None:
    """Bring labels made elsewhere into a label store.

    Args:
        data: the image-text shards that the labels belong to.
        source: folder or URL of KEY.png or SHARD/KEY.png, or of tars aligned with the shards.
        out: folder of label stores; NAME is made in it.
        name: of the expert's folder.
        origin: who made the labels: goes to the manifest.
        form: class ids in grey PNG, depth in 16-bit grey PNG, or normals in RGB PNG.
        classes: for classes: file of names, one a line, from id 0.
        ignore: for classes: id of pixels without a class (255, or 65535 for 16 bits).
        scale: for depth: unit per step of the PNG, such as 0.001 for millimetres.
        unit: for depth: of value times scale.
        invalid: for depth: the value of pixels without a depth.
        frame: for normals: axes, such as right-down-forward-away.
        licence: of the labels.
        learnt_from: benchmarks whose images their maker learnt from, such as nyu-depth.
        max_side: longest side in pixels of what is stored.
        codec: instead of the kind's default; `cliptex label plan` shows those of a kind.
        max_failures: share of the images that may be without a label; above it the command ends
            with status 3, and what was written stays. 1 where only a part has labels.
    """
    from cliptex.labelling.adopt import adopt_labels
    from cliptex.labelling.stores import refuse_losses

    check_share(max_failures)
    shards = whole_shards(data)
    report = adopt_labels(
        shards,
        source,
        out,
        _form(form, classes, ignore, scale, unit, invalid, frame),
        name=name,
        origin=origin,
        licence=licence,
        learnt_from=learnt_from,
        max_side=max_side,
        codec=codec,
    )
    print(report)
    print(report.folder)
    refuse_losses(tell_losses([report.folder], shards.shards), max_failures)


def _dataset(layout: str, root: Path, split: str, keyed: bool) -> KeyedDataset:
    """The benchmark; ValueError where its pictures must have keys and have none."""
    data = LAYOUTS[layout].open(root, split)
    if keyed and not hasattr(data, "keys"):
        raise ValueError(
            f"`labels`: pictures of the layout {layout} have no keys by which labels are joined; "
            "score an `expert` instead"
        )
    return data


def _form(
    form: Literal["classes", "depth", "normals"],
    classes: Path | None,
    ignore: int,
    scale: float | None,
    unit: Literal["m", "1/m", "relative disparity"] | None,
    invalid: int,
    frame: str | None,
) -> Form:
    from cliptex.datasets.protocol import read_lines
    from cliptex.labelling.adopt import ClassPng, DepthPng, NormalsPng

    if form == "classes" and classes is not None:
        return ClassPng(classes=tuple(read_lines(classes)), ignore=ignore)
    if form == "depth" and scale is not None and unit is not None:
        return DepthPng(scale=scale, unit=unit, invalid=invalid)
    if form == "normals" and frame is not None:
        return NormalsPng(frame=frame)
    needed = {"classes": "--classes", "depth": "--scale and --unit", "normals": "--frame"}
    raise ValueError(f"labels of form {form} need {needed[form]}")
