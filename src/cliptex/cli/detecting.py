"""`cliptex probe --dataset coco`: Mask R-CNN and SSD, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cliptex.cli.probe_rows import Measured, probed, show_pictures
from cliptex.cli.probing import Head, ProbeOptions
from cliptex.cli.weights import process_of

if TYPE_CHECKING:
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.cost import Cost
    from cliptex.probes.detection.config import DetectionProbe

HEADS: tuple[Head, ...] = ("mask-rcnn", "ssd")


def detection_probes(options: ProbeOptions) -> list[DetectionProbe]:
    """The recipe's probes (both where none is named), with what was given instead."""
    from cliptex.probes.detection import config as recipes

    if options.recipe == "fast":
        raise ValueError("--recipe: detection has no fast recipe; add --recipe paper or small")
    unknown = [head for head in options.probe if head not in HEADS]
    if unknown:
        raise ValueError(f"--probe {unknown[0]}: detection has {' and '.join(HEADS)}")
    _refuse_unused(options)
    made = {
        ("paper", "mask-rcnn"): recipes.paper_mask_rcnn,
        ("paper", "ssd"): recipes.paper_ssd,
        ("small", "mask-rcnn"): recipes.small_mask_rcnn,
        ("small", "ssd"): recipes.small_ssd,
    }
    return [_changed(made[options.recipe, head](), options) for head in options.probe or HEADS]


def detection_rows(options: ProbeOptions) -> Measured:
    """Mask R-CNN, SSD or both: each probe's seeds and rates on one encoder pass per batch."""
    from cliptex.probes.detection.pictures import draw_detections
    from cliptex.probes.detection.run import run_detection_probe

    probes = detection_probes(options)
    if process_of()[1] > 1:
        raise ValueError("torchrun: detection probes are one process; start them without it")
    train, val, test = options.splits()
    found = Measured()
    for one in probed(options, test):
        naming = one.naming
        names = {"model": naming.model, "checkpoint": naming.checkpoint, "leak": naming.leak}
        for probe in probes:
            config = probe.model_copy(update={"seeds": one.seeds})
            folder = None if options.state is None else options.state / probe.name
            if folder is not None and one.control:
                folder = folder / f"{naming.model}-{'-'.join(map(str, one.seeds))}"
            outcome = run_detection_probe(
                one.encoder, train, test, config, val=val, folder=folder, **names
            )
            found.add(outcome, "; ".join(outcome.errors))
            if options.pictures and not one.control and outcome.heads:
                drawn = draw_detections(one.encoder, outcome, test, config, options.pictures)
                show_pictures(options, [drawn], naming.model)
    return found


def detection_costs(options: ProbeOptions, encoder: FrozenEncoder) -> list[Cost]:
    """What --dry-run counts: on the data set, or on COCO's numbers of pictures without one."""
    from cliptex.probes.cost_detection import COCO, Pictures, detection_cost

    data = COCO
    if options.dataset is not None:
        train, _, test = options.splits()
        counts = len(train.with_objects()), len(test)
        data = Pictures(train.name, *counts, len(train.classes) + 1)
    return [detection_cost(probe, encoder, data) for probe in detection_probes(options)]


def _refuse_unused(options: ProbeOptions) -> None:
    unused = {
        "--features": options.features is not None,
        "--no-augmentation": not options.augmentation,
    }
    given = [name for name, there in unused.items() if there]
    if given:
        raise ValueError(
            f"{given[0]}: detection probes learn from augmented pictures; leave it out"
        )


def _changed(probe: DetectionProbe, options: ProbeOptions) -> DetectionProbe:
    values: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size}
    changes = {name: value for name, value in values.items() if value is not None}
    if options.resolution is not None:
        changes |= {"size": options.resolution, "train_sizes": ()}
    if options.warmup_steps is not None:
        steps = {"warmup_steps": options.warmup_steps}
        changes["schedule"] = probe.schedule.model_copy(update=steps)
    changes |= {"rates": options.lr, "seeds": options.seeds}
    return type(probe).model_validate({**dict(probe), **changes})
