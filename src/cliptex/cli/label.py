"""`cliptex label`."""

from __future__ import annotations

import os
from pathlib import Path

from tyro.conf import Positional


def run(
    data: Path,
    expert: tuple[str, ...],
    out: Path,
    weights: Path | None = None,
    batch_size: int = 8,
    max_side: int = 512,
    retry_failed: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
) -> None:
    """Label image-text shards with experts, in one pass; a run that was stopped goes on.

    Args:
        data: folder of image-text shards, or one tar.
        expert: one or more names of `cliptex experts list`, or paths of YAML cards; ONNX models
            of shipped cards and released weight files need --weights.
        out: folder of label stores; each expert's own is made in it.
        weights: model file of a card, or the folder that holds those of all cards; by default
            beside the card.
        batch_size: images per call of an expert.
        max_side: longest side in pixels of what is stored.
        retry_failed: label shards anew in which the expert failed on some image.
        rank: number of this job, from 0, among --world-size; by default as the variables of a
            Slurm job array, of torchrun or of srun say.
        world_size: number of jobs that share the shards.
    """
    from cliptex.console import say
    from cliptex.experts.load import load_expert
    from cliptex.labelling.engine import label_shards
    from cliptex.labelling.jobs import rank_and_world
    from cliptex.shards.dataset import ImageTextShards

    rank, world_size = rank_and_world(rank, world_size, os.environ)
    if world_size > 1:
        say(f"job {rank} of {world_size}, counted from 0: shards {rank}, {rank + world_size}, ...")
    reports = label_shards(
        ImageTextShards(data),
        [load_expert(name, weights) for name in expert],
        out,
        batch_size=batch_size,
        max_side=max_side,
        retry_failed=retry_failed,
        rank=rank,
        world_size=world_size,
    )
    for report in reports:
        counts = ", ".join(f"{count} {status}" for status, count in report.statuses.items())
        done, before = report.shards_done, report.shards_skipped
        print(f"{done} shards done, {before} done before: {counts or '-'}")
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
