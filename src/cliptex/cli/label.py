"""`cliptex label`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional


def run(
    data: Path,
    expert: str,
    out: Path,
    weights: Path | None = None,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
) -> None:
    """Label image-text shards with an expert; a run that was stopped goes on.

    Args:
        data: folder of image-text shards, or one tar.
        expert: playroom:segmentation, playroom:depth, playroom:normals, a YAML card, or the name
            of a shipped card (deeplab_voc21, nyu_depth, nyu_normals) with --weights.
        out: folder of label stores; the expert's own is made in it.
        weights: model file of a card, or the folder it lies in; by default beside the card.
        batch_size: images per call of the expert.
        max_side: longest side in pixels of what is stored.
        retry_failed: label shards anew in which the expert failed on some image.
    """
    from cliptex.experts.load import load_expert
    from cliptex.labelling.engine import label_shards
    from cliptex.shards.dataset import ImageTextShards

    report = label_shards(
        ImageTextShards(data),
        load_expert(expert, weights),
        out,
        batch_size=batch_size,
        max_side=max_side,
        retry_failed=retry_failed,
    )
    counts = ", ".join(f"{count} {status}" for status, count in report.statuses.items())
    print(f"{report.shards_done} shards done, {report.shards_skipped} done before: {counts or '-'}")
    print(report.folder)


def status(labels: Positional[Path], /, data: Path) -> None:
    """Count what is labelled, and list what is not with the reason.

    Args:
        labels: folder of label stores, or that of one expert.
        data: the image-text shards that are labelled.
    """
    from cliptex.labelling.status import describe_status, label_status
    from cliptex.shards.dataset import ImageTextShards

    print(describe_status(label_status(ImageTextShards(data), labels)))


def stats(labels: Positional[Path], /) -> None:
    """What the labels hold: shares of classes, ranges of depth, sizes on disk.

    Args:
        labels: folder of label stores, or that of one expert.
    """
    from cliptex.labelling.stats import describe_stats, label_stats
    from cliptex.labelling.status import expert_folders

    folders = expert_folders(labels)
    if not folders:
        raise FileNotFoundError(f"{labels} holds no labels; `cliptex label run` makes them")
    for folder in folders:
        print(describe_stats(label_stats(folder)))


def view(labels: Positional[Path], /, data: Path, out: Path, count: int = 24) -> None:
    """Write an HTML page of labels drawn beside and over their images.

    Args:
        labels: folder of label stores, or that of one expert.
        data: the image-text shards that were labelled.
        out: the page.
        count: number of samples.
    """
    from cliptex.labelling.view import write_view
    from cliptex.shards.dataset import ImageTextShards

    print(write_view(ImageTextShards(data), labels, out, count=count))
