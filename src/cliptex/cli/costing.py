"""`cliptex probe --dry-run`: what a data set's probes, or all of the paper's, would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from cliptex.cli.errors import in_flags
from cliptex.probes.options import DETECTORS, ProbeOptions

if TYPE_CHECKING:
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.config import DetectionConfig
    from cliptex.probes.cost import Cost, Job
    from cliptex.probes.cost_detection import Pictures

    Count = Callable[[FrozenEncoder, tuple[int, ...]], Cost]  # on an encoder, of these seeds


def cost_text(options: ProbeOptions) -> str:
    """What --dry-run prints; the model is described, not loaded."""
    from cliptex.models.config import PEAKS
    from cliptex.probes.cost import Device, cost_table, described_encoder

    device = Device(options.gpu.upper(), PEAKS[options.gpu], options.utilisation)
    if options.peak_tflops is not None:
        peaks = dict(zip(PEAKS["a100"], options.peak_tflops, strict=True))
        device = Device("the given GPU", peaks, options.utilisation)
    counts = _counts(options)
    encoder = described_encoder(options.model, options.output_stride)
    costs = [cost for count in counts for cost in _of_encoders(count, encoder, options)]
    return f"{options.model}\n{in_flags(cost_table(costs, device))}"


def _counts(options: ProbeOptions) -> list[Count]:
    """One for each set of probes that share an encoder's passes."""
    from cliptex.probes.cost import Job, paper_jobs
    from cliptex.probes.cost_detection import COCO, Pictures
    from cliptex.probes.task import task_of

    if options.dataset is None:
        return _of_paper(options, paper_jobs(), COCO)
    train, val, test = options.splits()
    compared = None if val is None else len(val)
    configs: Any = options.configs()
    if options.task == "detection":
        counts = len(train.with_objects()), len(test)
        data = Pictures(train.name, *counts, len(train.classes) + 1, compared)
        return [partial(_of_detection, config, data) for config in configs]
    (config,) = configs
    job = Job(
        task=cast(Any, options.task),
        dataset=train.name,
        train_images=len(train),
        test_images=len(test),
        outputs=task_of(train, config).outputs,
        config=config,
        val_images=compared,
    )
    return [_of_job(job, options)]


def _of_paper(options: ProbeOptions, jobs: list[Job], coco: Pictures) -> list[Count]:
    """All columns of Table 8, or those of the heads that are named."""
    detectors = tuple(head for head in options.probe if head in DETECTORS)
    others = tuple(head for head in options.probe if head not in DETECTORS)
    counts: list[Count] = []
    if others or not detectors:
        dense = replace(options, probe=others)
        linear = "linear" in others or not others
        counts = [
            _of_job(replace(job, config=cast(Any, dense.configs(job.task)[0])), options)
            for job in jobs
            if linear or job.task != "classification"
        ]
    if detectors or not others:  # where Table 8 has them
        configs: Any = options.configs("detection", detectors)
        counts[2:2] = [partial(_of_detection, config, coco) for config in configs]
    return counts


def _of_job(job: Job, options: ProbeOptions) -> Count:
    stored = None if options.features is None else options.features_dtype
    return partial(_cost, replace(job, stored=stored))


def _cost(job: Job, encoder: FrozenEncoder, seeds: tuple[int, ...]) -> Cost:
    from cliptex.probes.cost import cost_of

    return cost_of(job.of_seeds(seeds), encoder)


def _of_detection(
    config: DetectionConfig, data: Pictures, encoder: FrozenEncoder, seeds: tuple[int, ...]
) -> Cost:
    from cliptex.probes.cost_detection import detection_cost

    return detection_cost(config.model_copy(update={"seeds": seeds}), encoder, data)


def _of_encoders(count: Count, encoder: FrozenEncoder, options: ProbeOptions) -> Iterator[Cost]:
    """The model's cost and, with --controls, those of what `probe.probed` adds to it."""
    from cliptex.models.encoder import FrozenEncoder, PixelEncoder
    from cliptex.probes.baselines import PIXELS, RANDOM

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
