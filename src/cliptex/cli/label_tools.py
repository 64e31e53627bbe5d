"""`cliptex label verify`, `score`, `agreement`, `plan` and `adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg

if TYPE_CHECKING:
    from cliptex.datasets import DenseDataset
    from cliptex.labelling.adopt import Form

DatasetKind = Literal["voc", "nyu-depth", "nyu-normals"]


def verify(
    labels: Positional[AnyPathArg],
    /,
    data: AnyPathArg,
    sample: int = 0,
    expert: str | None = None,
    weights: Path | None = None,
    seed: int = 0,
) -> None:
    """Check one expert's labels: hashes, counts, keys, and a random sample; fails on a problem.

    Args:
        labels: LABELS/EXPERT, the folder of one expert's labels.
        data: the image-text shards that were labelled.
        sample: images whose label is inferred anew and compared; needs --expert.
        expert: the expert that made the labels, as `cliptex label run` takes it.
        weights: model file of a card, or the folder it lies in.
        seed: which labels are drawn.
    """
    from cliptex.experts.load import load_expert
    from cliptex.labelling.verify import verify_labels
    from cliptex.shards.dataset import ImageTextShards

    report = verify_labels(
        ImageTextShards(data),
        labels,
        sample=sample,
        expert=load_expert(expert, weights) if expert and sample else None,
        seed=seed,
    )
    print(report)
    if not report.ok:
        raise SystemExit(1)


def score(
    root: Path,
    dataset_kind: DatasetKind,
    split: str = "val",
    expert: str | None = None,
    weights: Path | None = None,
    labels: AnyPathArg | None = None,
    batch_size: int = 8,
    out: Path | None = None,
) -> None:
    """Measure an expert, or stored labels, against a benchmark in its real layout.

    Args:
        root: folder of the benchmark: VOCdevkit, or that of NYU.
        dataset_kind: which benchmark.
        split: which of its splits.
        expert: as `cliptex label run` takes it; or give --labels.
        weights: model file of a card, or the folder it lies in.
        labels: LABELS/EXPERT, labels of VOC's pictures keyed by their file stems.
        batch_size: pictures per call of the expert.
        out: results.jsonl to append the rows to.
    """
    from cliptex.datasets import VocSegmentation
    from cliptex.experts.load import load_expert
    from cliptex.labelling.score import describe_scores, score_expert_on, score_store_on
    from cliptex.labels.reader import LabelReader
    from cliptex.results import append_results

    if (expert is None) == (labels is None):
        raise ValueError("say what to score: either --expert or --labels")
    dataset = _dataset(dataset_kind, root, split)
    if expert is not None:
        rows = score_expert_on(dataset, load_expert(expert, weights), batch_size=batch_size)
    elif labels is not None and isinstance(dataset, VocSegmentation):
        keys = [image.stem for image, _ in dataset.files]
        rows = score_store_on(dataset, LabelReader(labels), keys)
    else:
        raise ValueError(
            f"pictures of {dataset_kind} have no names to find labels by: use --expert"
        )
    print(describe_scores(rows))
    if out is not None:
        append_results(out, rows)
        print(out)


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
    from cliptex.shards.dataset import ImageTextShards

    shards, first, second = ImageTextShards(data), LabelReader(depth), LabelReader(normals)
    if out is None:
        found = agreements(shards, first, second, view=view)
    else:
        found = store_agreements(shards, first, second, out, view=view)
    print(describe(*summarise(found, rows), first.kind))
    for path in (out, rows):
        if path is not None:
            print(path)


def plan(
    data: AnyPathArg,
    expert: str,
    weights: Path | None = None,
    count: int = 16,
    batch_size: int = 8,
    max_side: int = 512,
) -> None:
    """Label a few images, and say what the whole data set will cost; nothing is kept.

    Args:
        data: folder of image-text shards, or one tar.
        expert: as `cliptex label run` takes it.
        weights: model file of a card, or the folder it lies in.
        count: images to label.
        batch_size: images per call of the expert.
        max_side: longest side in pixels of what is stored.
    """
    from cliptex.experts.load import load_expert
    from cliptex.labelling.plan import plan_labels
    from cliptex.shards.dataset import ImageTextShards

    shards, model = ImageTextShards(data), load_expert(expert, weights)
    print(plan_labels(shards, model, count=count, batch_size=batch_size, max_side=max_side))


def adopt(
    data: AnyPathArg,
    source: Path,
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
    max_side: int = 512,
) -> None:
    """Bring labels made elsewhere into a label store.

    Args:
        data: the image-text shards that the labels belong to.
        source: folder of KEY.png or SHARD/KEY.png, or of tars aligned with the shards.
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
        max_side: longest side in pixels of what is stored.
    """
    from cliptex.labelling.adopt import adopt_labels
    from cliptex.shards.dataset import ImageTextShards

    report = adopt_labels(
        ImageTextShards(data),
        source,
        out,
        _form(form, classes, ignore, scale, unit, invalid, frame),
        name=name,
        origin=origin,
        licence=licence,
        max_side=max_side,
    )
    print(report)
    print(report.folder)


def _dataset(kind: DatasetKind, root: Path, split: str) -> DenseDataset:
    from cliptex.datasets import NormalsFolder, NyuDepth, VocSegmentation

    readers = {"voc": VocSegmentation, "nyu-depth": NyuDepth, "nyu-normals": NormalsFolder}
    return readers[kind](root, split)


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
