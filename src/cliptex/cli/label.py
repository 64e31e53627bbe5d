"""`cliptex label run`, `retry`, `status`, `stats` and `view`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg
from cliptex.cli.expert_options import NO_OPTIONS, Confidence, ExpertArgs, load_experts
from cliptex.cli.help import verb
from cliptex.cli.label_data import check_share, tell_losses, whole_shards
from cliptex.console import MAX_FAILURES
from cliptex.labelling.options import LabelOptions, RayOptions

if TYPE_CHECKING:
    from cliptex.labelling.engine import LabelRunReport


@verb(
    "cliptex label run --data runs/demo/web/shards --expert sobel-edges --out labels",
    "cliptex label run --data shards --expert hub-depth:Intel/dpt-large"
    " --precision bf16 --out labels",
    first="data expert out weights device precision batch_size max_side confidence engine",
)
def run(
    data: AnyPathArg,
    expert: tuple[str, ...],
    out: AnyPathArg,
    loading: ExpertArgs = NO_OPTIONS,
    batch_size: int = 8,
    max_side: int = 512,
    codec: tuple[str, ...] = (),
    confidence: Confidence = "own",
    max_failures: float = MAX_FAILURES,
    engine: Literal["local", "ray"] = "local",
    ray: RayOptions = RayOptions(),  # noqa: B008 (frozen)
    rank: int | None = None,
    world_size: int | None = None,
) -> None:
    """Label image-text shards with experts, in one pass; a run that was stopped goes on.

    Damaged shards are left out and named, and fail the command after all others are labelled.

    Args:
        data: folder of image-text shards, or one tar.
        expert: one or more names of `cliptex experts list`, or paths of YAML cards; ONNX models
            of shipped cards and released weight files need --weights.
        out: folder of label stores; each expert's own is made in it.
        loading: where the experts run, and what is said about them.
        batch_size: images per call of an expert.
        max_side: longest side in pixels of what is stored.
        codec: instead of the default codecs, one a kind of label; `cliptex label plan` shows them.
        confidence: what is stored of the experts' reliability: what they say themselves, whether
            they say the same of the mirrored image (twice the time), or nothing.
        max_failures: share of the labelled shards' images that may be without a label; above it
            the command ends with status 3, and what was written stays.
        engine: this process, or a Ray cluster.
        ray: the cluster, with --engine ray.
        rank: number of this job, from 0, among --world-size; by default as the variables of a
            Slurm job array, of torchrun or of srun say.
        world_size: number of jobs that share the shards.
    """
    from cliptex.labelling.stores import refuse_losses
    from cliptex.shards.dataset import ImageTextShards

    check_share(max_failures)
    shards = ImageTextShards(data, on_damaged="leave out")
    mine = shards.shards
    load = partial(load_experts, expert, loading, confidence)
    options = LabelOptions(batch_size=batch_size, max_side=max_side, codec=codec)
    failures = dict(shards.damaged)
    if engine == "ray":
        from cliptex.labelling.ray_engine import label_shards_with_ray

        if rank is not None or world_size is not None:
            raise ValueError(
                "--rank and --world-size belong to --engine local; Ray has --ray.actors"
            )
        found = label_shards_with_ray(shards, load, out, options, ray)
        reports = found.reports
        failures.update(found.failures)
    else:
        from cliptex.labelling.engine import label_shards
        from cliptex.labelling.options import share_of

        rank, world_size = _share(rank, world_size)
        mine = share_of(mine, rank, world_size)
        reports = label_shards(shards, load(), out, options, only=mine)
    _print(reports)
    losses = tell_losses([report.folder for report in reports], mine)
    _fail_for(failures)
    refuse_losses(losses, max_failures, whole=len(mine) == len(shards.shards))


@verb(
    "cliptex label retry runs/demo/labels --data runs/demo/web/shards --expert playroom:depth",
    "cliptex label retry labels --data shards --expert hub-depth:Intel/dpt-large --device cuda:0",
    first="data expert weights device precision batch_size confidence max_failures",
)
def retry(
    labels: Positional[AnyPathArg],
    /,
    data: AnyPathArg,
    expert: tuple[str, ...],
    loading: ExpertArgs = NO_OPTIONS,
    batch_size: int = 8,
    confidence: Confidence = "own",
    max_failures: float = MAX_FAILURES,
) -> None:
    """Label anew what experts failed on, as the ledgers say: whole shards that hold such images.

    An image is predicted with its batch, so only a whole shard comes out as if nothing had failed;
    that takes the same options as the run had. Images that cannot be decoded do not count.

    Args:
        labels: folder of label stores, in which each expert has its own.
        data: the image-text shards that are labelled.
        expert: one or more experts, as `cliptex label run` takes them.
        loading: as the run had them.
        batch_size: images per call of an expert.
        confidence: as the labels were made.
        max_failures: as `cliptex label run` takes it.
    """
    from cliptex.labelling.engine import label_shards
    from cliptex.labelling.stores import find_failures, refuse_losses

    check_share(max_failures)
    shards = whole_shards(data)
    models = load_experts(expert, loading, confidence)
    found = [find_failures(shards, labels, model.spec.name) for model in models]
    for model, failures in zip(models, found, strict=True):
        print(failures)
        if failures.due:
            options = LabelOptions(
                batch_size=batch_size, max_side=failures.max_side, codec=(failures.codec,)
            )
            _print(
                label_shards(shards, [model], labels, options, only=failures.due, retry_failed=True)
            )
    losses = tell_losses([failures.folder for failures in found], shards.shards)
    refuse_losses(losses, max_failures)


def _share(rank: int | None, world_size: int | None) -> tuple[int, int]:
    from cliptex.console import say
    from cliptex.labelling.options import rank_and_world

    rank, world_size = rank_and_world(rank, world_size, os.environ)
    if world_size > 1:
        say(f"job {rank} of {world_size}, counted from 0: shards {rank}, {rank + world_size}, ...")
    return rank, world_size


def _print(reports: Sequence[LabelRunReport]) -> None:
    for report in reports:
        counts = ", ".join(f"{count} {status}" for status, count in report.statuses.items())
        done, before = report.shards_done, report.shards_skipped
        print(f"{done} shards done, {before} done before: {counts or '-'}")
        print(report.folder)


def _fail_for(shards: Mapping[str, str]) -> None:
    if shards:
        lines = "\n".join(f"{shard}: {why}" for shard, why in shards.items())
        raise ValueError(
            f"{len(shards)} shards have no labels; put them right and run the same command again, "
            f"which labels them alone:\n{lines}"
        )


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
