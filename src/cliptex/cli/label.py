"""`cliptex label plan`, `run`, `retry` and `adopt`: the commands that make labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from cliptex.cli.arguments import AnyPathArg
from cliptex.cli.expert_options import NO_OPTIONS, Confidence, ExpertArgs, load_experts
from cliptex.cli.help import verb
from cliptex.console import MAX_FAILURES
from cliptex.files import AnyPath
from cliptex.labelling.options import LabelOptions, RayOptions

if TYPE_CHECKING:
    from cliptex.labelling.adopt import Form
    from cliptex.labelling.engine import LabelRunReport
    from cliptex.labelling.stores import Losses
    from cliptex.shards.dataset import ImageTextShards

RunArgs = OmitArgPrefixes[LabelOptions]
"""`LabelOptions` as --batch-size, not as --options.batch-size."""
RUN_OPTIONS = LabelOptions()
RAY_OPTIONS = RayOptions()


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
    options: RunArgs = RUN_OPTIONS,
    confidence: Confidence = "own",
) -> None:
    """Label a few images, and say what the whole data set will cost; nothing is kept.

    Experts label in one pass, as in a run. Of each kind of label, all codecs are compared.

    Args:
        data: folder of image-text shards, or one tar.
        expert: one or more experts, as `cliptex label run` takes them.
        loading: where the experts run, and what is said about them.
        count: images to label.
        options: settings of the run.
        confidence: as `cliptex label run` takes it.
    """
    from cliptex.labelling.plan import plan_labels

    models = load_experts(expert, loading, confidence)
    print(plan_labels(whole_shards(data), models, options, count=count))


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
    options: RunArgs = RUN_OPTIONS,
    confidence: Confidence = "own",
    max_failures: float = MAX_FAILURES,
    engine: Literal["local", "ray"] = "local",
    ray: RayOptions = RAY_OPTIONS,
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
        options: settings of the run.
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


def whole_shards(data: AnyPath) -> ImageTextShards:
    """The shards without the damaged ones, of which a line is printed."""
    from cliptex.shards.dataset import ImageTextShards

    shards = ImageTextShards(data, on_damaged="leave out")
    if shards.damaged:
        named = "; ".join(f"{shard} ({why})" for shard, why in shards.damaged.items())
        print(f"{len(shards.damaged)} damaged shards are left out: {named}")
    return shards


def check_share(max_failures: float) -> None:
    """ValueError where it is no share, before any work."""
    from cliptex.console import check_failures

    check_failures(0, 0, allowed=max_failures, what="", remedy="")


def tell_losses(folders: Sequence[AnyPath], shards: Sequence[str]) -> list[Losses]:
    """Print what the stores lack of the images in `shards`, whichever run labelled them."""
    from cliptex.labelling.stores import find_losses

    found = [find_losses(folder, shards) for folder in folders]
    for losses in found:
        if losses.lost:
            print(losses)
    return found
