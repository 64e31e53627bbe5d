"""`cliptex label status`, `stats`, `view`, `verify`, `score` and `agreement`: looks at labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg, DenseLayout
from cliptex.cli.expert_options import NO_OPTIONS, ExpertArgs, load_one
from cliptex.cli.help import verb
from cliptex.cli.label import whole_shards
from cliptex.cli.rows import check_writable
from cliptex.datasets.catalogue import LAYOUTS

if TYPE_CHECKING:
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
    "cliptex label status runs/demo/labels --data runs/demo/web/shards",
    "cliptex label status labels/dpt-large --data shards",
)
def status(labels: Positional[AnyPathArg], /, data: AnyPathArg) -> None:
    """Count what is labelled, and list what is not with the reason.

    Args:
        labels: folder of label stores, or that of one expert.
        data: the image-text shards that are labelled.
    """
    from cliptex.labelling.stores import describe_status, label_status
    from cliptex.shards.dataset import ImageTextShards

    print(describe_status(label_status(ImageTextShards(data, on_damaged="leave out"), labels)))


@verb(
    "cliptex label stats runs/demo/labels",
    "cliptex label stats labels/dpt-large",
)
def stats(labels: Positional[AnyPathArg], /) -> None:
    """What the labels hold: shares of classes, ranges of depth, sizes on disk.

    Args:
        labels: folder of label stores, or that of one expert.
    """
    from cliptex.labelling.stats import describe_stats, label_stats
    from cliptex.labelling.stores import expert_folders

    folders = expert_folders(labels)
    if not folders:
        raise FileNotFoundError(f"{labels} holds no labels; `cliptex label run` makes them")
    for folder in folders:
        print(describe_stats(label_stats(folder)))


@verb(
    "cliptex label view runs/demo/labels --data runs/demo/web/shards --out view.html",
    "cliptex label view labels/dpt-large --data shards --count 100 --out view.html",
)
def view(labels: Positional[AnyPathArg], /, data: AnyPathArg, out: Path, count: int = 24) -> None:
    """Write an HTML page of labels drawn beside and over their images.

    Args:
        labels: folder of label stores, or that of one expert.
        data: the image-text shards that were labelled.
        out: the page.
        count: number of samples.
    """
    from cliptex.labelling.view import write_view

    print(write_view(whole_shards(data), labels, out, count=count))


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


def _dataset(layout: str, root: Path, split: str, keyed: bool) -> KeyedDataset:
    """The benchmark; ValueError where its pictures must have keys and have none."""
    data = LAYOUTS[layout].open(root, split)
    if keyed and not hasattr(data, "keys"):
        raise ValueError(
            f"`labels`: pictures of the layout {layout} have no keys by which labels are joined; "
            "score an `expert` instead"
        )
    return data
