"""`cliptex probe --dry-run`: what a data set's probes, or all of the paper's, would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cliptex.cli.errors import in_flags
from cliptex.probes.options import DETECTORS, ProbeOptions

if TYPE_CHECKING:
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.cost import Cost, Counts, Job


def cost_text(options: ProbeOptions) -> str:
    """What --dry-run prints; the model is described, not loaded."""
    from cliptex.models.config import PEAKS
    from cliptex.probes.cost import Device, cost_table, described_encoder

    device = Device(options.gpu.upper(), PEAKS[options.gpu], options.utilisation)
    if options.peak_tflops is not None:
        peaks = dict(zip(PEAKS["a100"], options.peak_tflops, strict=True))
        device = Device("the given GPU", peaks, options.utilisation)
    jobs = _of_paper(options) if options.dataset is None else _of_dataset(options)
    encoder = described_encoder(options.model, options.output_stride)
    costs = [cost for job in jobs for cost in _of_encoders(job, encoder, options)]
    return in_flags(f"{options.model}\n{cost_table(costs, device)}")


def _of_dataset(options: ProbeOptions) -> list[Job]:
    """One for each set of heads that share an encoder's passes."""
    from cliptex.probes.cost import Counts
    from cliptex.probes.task import task_of

    train, val, test = options.splits()
    configs: Any = options.configs()
    if options.task == "detection":
        pictures, outputs = len(train.with_objects()), len(train.classes) + 1
    else:
        pictures, outputs = len(train), task_of(train, configs[0]).outputs
    compared = None if val is None else len(val)
    data = Counts(options.task, train.name, pictures, len(test), outputs, compared)
    return _jobs(data, configs, options)


def _of_paper(options: ProbeOptions) -> list[Job]:
    """All columns of Table 8, or those of the heads that are named."""
    from cliptex.probes.cost import PAPER_SETS

    detectors = tuple(head for head in options.probe if head in DETECTORS)
    others = tuple(head for head in options.probe if head not in DETECTORS)
    jobs: list[Job] = []
    for data in PAPER_SETS:
        heads = detectors if data.task == "detection" else others
        if options.probe and not heads:
            continue
        if data.task == "classification" and heads and "linear" not in heads:
            continue
        if data.task == "detection":
            why = "detection probes learn from augmented pictures"
            options.refuse(("features", "augmentation"), why)
        configs = replace(options, probe=heads).configs(data.task, heads)
        jobs += _jobs(data, configs, options)
    return jobs


def _jobs(data: Counts, configs: Any, options: ProbeOptions) -> list[Job]:
    from cliptex.probes.cost import Job

    stored = None
    if options.features is not None and data.task != "detection":
        stored = options.features_dtype
    return [Job(data=data, config=config, stored=stored) for config in configs]


def _of_encoders(job: Job, encoder: FrozenEncoder, options: ProbeOptions) -> Iterator[Cost]:
    """The model's cost and, with --controls, those of what `probe.probed` adds to it."""
    from cliptex.models.encoder import FrozenEncoder, PixelEncoder
    from cliptex.probes.baselines import PIXELS, RANDOM
    from cliptex.probes.cost import cost_of

    cost = cost_of(job, encoder)
    _check_room(cost, options)
    yield cost
    if options.controls:
        random = cost_of(job.of_seeds(options.seeds[:1]), encoder)
        yield random.on(RANDOM, len(options.seeds))
        yield cost_of(job, FrozenEncoder(PixelEncoder(encoder.stride))).on(PIXELS)


def _check_room(cost: Cost, options: ProbeOptions) -> None:
    """ValueError where the features of one set exceed --features-gib, as in the run."""
    gib = cost.stored / 2**30
    if gib > options.features_gib:
        raise ValueError(
            f"`features_gib`: features of {cost.dataset} take {gib:.2f} GiB, more than "
            f"{options.features_gib:g}; raise it, or set `features_dtype=int8`"
        )
