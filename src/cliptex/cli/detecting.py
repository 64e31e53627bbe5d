"""`cliptex probe --dataset coco`: Mask R-CNN and SSD, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from cliptex.cli.layouts import Head
from cliptex.cli.probe_rows import Measured, Probed, probed, show_pictures
from cliptex.cli.probing import ProbeOptions
from cliptex.cli.weights import process_of

if TYPE_CHECKING:
    from cliptex.datasets.protocol import DetectionDataset
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.cost import Cost
    from cliptex.probes.cost_detection import Pictures
    from cliptex.probes.detection.config import DetectionProbe

    Count = Callable[[FrozenEncoder, tuple[int, ...]], Cost]  # on an encoder, of these seeds

HEADS: tuple[Head, ...] = ("mask-rcnn", "ssd")


def detection_probes(options: ProbeOptions) -> list[DetectionProbe]:
    """The recipe's probes (both where none is named), with what was given instead."""
    from cliptex.probes.detection import config as recipes

    if options.recipe == "fast":
        raise ValueError("--recipe: detection has no fast recipe; add --recipe paper or small")
    unknown = [head for head in options.probe if head not in HEADS]
    if unknown:
        raise ValueError(f"--probe {unknown[0]}: detection has {' and '.join(HEADS)}")
    options.refuse(("features", "augmentation"), "detection probes learn from augmented pictures")
    made = {
        ("paper", "mask-rcnn"): recipes.paper_mask_rcnn,
        ("paper", "ssd"): recipes.paper_ssd,
        ("small", "mask-rcnn"): recipes.small_mask_rcnn,
        ("small", "ssd"): recipes.small_ssd,
    }
    return [_changed(made[options.recipe, head](), options) for head in options.probe or HEADS]


def detection_rows(options: ProbeOptions) -> Measured:
    """Mask R-CNN, SSD or both: each probe's seeds and rates on one encoder pass per batch.

    Under torchrun every process trains its share of the pairs of probe and seed.
    """
    from cliptex.probes.detection.baseline import run_detection_baseline
    from cliptex.probes.processes import Share

    probes = detection_probes(options)
    sets = options.splits()
    found = Measured(options)
    share = Share(*process_of())
    for one in probed(options, sets[2]):
        pairs = share.of((probe, seed) for probe in probes for seed in one.seeds)
        for probe in probes:
            seeds = tuple(seed for other, seed in pairs if other is probe)
            if seeds:
                _detect(options, one, probe.model_copy(update={"seeds": seeds}), sets, found)
    found.add_mean(run_detection_baseline)
    return found


def _detect(
    options: ProbeOptions,
    one: Probed,
    config: DetectionProbe,
    sets: tuple[DetectionDataset, DetectionDataset | None, DetectionDataset],
    found: Measured,
) -> None:
    """One probe on one encoder, into `found`; pictures are of the first seed that was asked for."""
    from cliptex.probes.detection.pictures import draw_detections
    from cliptex.probes.detection.run import run_detection_probe

    train, val, test = sets
    naming = one.naming
    folder = one.state(options)
    if folder is not None:  # one for each process that may write to it
        folder = folder / config.name / "-".join(map(str, config.seeds))
    outcome = run_detection_probe(
        one.encoder,
        train,
        test,
        config,
        val=val,
        model=naming.model,
        checkpoint=naming.checkpoint,
        leak=naming.leak,
        folder=folder,
    )
    found.add(one, outcome, "; ".join(outcome.errors))
    if options.pictures and not one.control and options.seeds[0] in outcome.heads:
        drawn = draw_detections(one.encoder, outcome, test, config, options.pictures)
        show_pictures(options, [drawn], naming.model)


def detection_counts(options: ProbeOptions) -> list[Count]:
    """What --dry-run counts: on the data set, or on COCO's numbers of pictures without one."""
    from cliptex.probes.cost_detection import COCO, Pictures

    data = COCO
    if options.dataset is not None:
        train, val, test = options.splits()
        counts = len(train.with_objects()), len(test)
        compared = None if val is None else len(val)
        data = Pictures(train.name, *counts, len(train.classes) + 1, compared)
    return [partial(_cost, probe, data) for probe in detection_probes(options)]


def _cost(
    probe: DetectionProbe, data: Pictures, encoder: FrozenEncoder, seeds: tuple[int, ...]
) -> Cost:
    from cliptex.probes.cost_detection import detection_cost

    return detection_cost(probe.model_copy(update={"seeds": seeds}), encoder, data)


def _changed(probe: DetectionProbe, options: ProbeOptions) -> DetectionProbe:
    """The probe with what was given; a longer or shorter one has its drops in proportion."""
    values: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size}
    values |= options.precisions()
    changes = {name: value for name, value in values.items() if value is not None}
    if options.resolution is not None:
        changes |= {"size": options.resolution, "train_sizes": ()}
    plan: dict[str, Any] = {}
    if options.warmup_steps is not None:
        plan["warmup_steps"] = options.warmup_steps
    if options.epochs is not None:
        share = options.epochs / probe.epochs
        plan["milestones"] = tuple(round(share * epoch) for epoch in probe.schedule.milestones)
    changes |= {"schedule": probe.schedule.model_copy(update=plan)}
    changes |= {"rates": options.lr, "seeds": options.seeds}
    return type(probe).model_validate({**dict(probe), **changes})
