"""`cliptex probe --dry-run`: what a data set's probes, or all of the paper's, would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cliptex.cli.detecting import detection_counts
from cliptex.cli.layouts import DETECTORS
from cliptex.cli.probing import ProbeOptions, example_sets

if TYPE_CHECKING:
    from cliptex.cli.detecting import Count
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.cost import Cost, Job


def cost_text(options: ProbeOptions) -> str:
    """What --dry-run prints; the model is described, not loaded."""
    from cliptex.models.config import PEAKS
    from cliptex.probes.cost import Device, cost_table, described_encoder

    if options.recipe == "fast":
        raise ValueError("--dry-run: it counts the other recipes; add --recipe paper or small")
    device = Device(options.gpu.upper(), PEAKS[options.gpu], options.utilisation)
    if options.peak_tflops is not None:
        peaks = dict(zip(PEAKS["a100"], options.peak_tflops, strict=True))
        device = Device("the given GPU", peaks, options.utilisation)
    counts = _counts(options)
    encoder = described_encoder(options.model, options.output_stride)
    costs = [cost for count in counts for cost in _of_encoders(count, encoder, options)]
    return f"{options.model}\n{cost_table(costs, device)}"


def _counts(options: ProbeOptions) -> list[Count]:
    """One for each set of probes that share an encoder's passes."""
    from cliptex.probes.cost import Job, paper_jobs

    if options.dataset is None:
        return _of_paper(options, paper_jobs())
    if options.task == "detection":
        return detection_counts(options)
    train, val, test, config = example_sets(options)
    job = Job(
        task=options.task,
        dataset=train.name,
        train_images=len(train),
        test_images=len(test),
        outputs=train.task.channels,
        config=config,
        val_images=None if val is None else len(val),
    )
    return [_of_job(job, options)]


def _of_paper(options: ProbeOptions, jobs: list[Job]) -> list[Count]:
    """All columns of Table 8, or those of the heads that are named."""
    detectors = tuple(head for head in options.probe if head in DETECTORS)
    others = tuple(head for head in options.probe if head not in DETECTORS)
    counts: list[Count] = []
    if others or not detectors:
        dense = replace(options, probe=others)
        linear = "linear" in others or not others
        counts = [
            _of_job(replace(job, config=dense.bank(job.task)), options)
            for job in jobs
            if linear or job.task != "classification"
        ]
    if detectors or not others:
        counts[2:2] = detection_counts(replace(options, probe=detectors))  # where Table 8 has them
    return counts


def _of_job(job: Job, options: ProbeOptions) -> Count:
    stored = None if options.features is None else options.features_dtype
    return partial(_cost, replace(job, stored=stored))


def _cost(job: Job, encoder: FrozenEncoder, seeds: tuple[int, ...]) -> Cost:
    from cliptex.probes.cost import cost_of

    return cost_of(job.of_seeds(seeds), encoder)


def _of_encoders(count: Count, encoder: FrozenEncoder, options: ProbeOptions) -> Iterator[Cost]:
    """The model's cost and, with --controls, those of what `probe_rows.probed` adds to it."""
    from cliptex.models.encoder import FrozenEncoder, PixelEncoder
    from cliptex.probes.controls import PIXELS, RANDOM

    cost = count(encoder, options.seeds)
    _check_room(cost, options)
    yield cost
    if options.controls:
        yield count(encoder, options.seeds[:1]).on(RANDOM, len(options.seeds))
        yield count(FrozenEncoder(PixelEncoder(encoder.stride)), options.seeds).on(PIXELS)


def _check_room(cost: Cost, options: ProbeOptions) -> None:
    """ValueError where the features of one set exceed --features-gib, as in the run."""
    gib = cost.stored / 2**30
    if gib > options.features_gib:
        raise ValueError(
            f"--features-gib {options.features_gib:g}: {gib:.2f} GiB of features of "
            f"{cost.dataset} exceed it; raise it, or add --features-dtype int8"
        )
