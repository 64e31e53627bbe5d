"""`cliptex probe --dry-run`: what a data set's probes, or all of the paper's, would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cliptex.cli.layouts import DETECTORS
from cliptex.cli.probing import ProbeOptions, example_sets

if TYPE_CHECKING:
    from cliptex.probes.cost import Job


def cost_text(options: ProbeOptions) -> str:
    """What --dry-run prints; the model is described, not loaded."""
    from cliptex.probes.cost import Device, cost_of, cost_table, described_encoder

    if options.recipe == "fast":
        raise ValueError("--dry-run: it counts the other recipes; add --recipe paper or small")
    device = Device(peak_tflops=options.peak_tflops, utilisation=options.utilisation)
    encoder = described_encoder(options.model, options.output_stride)
    if options.dataset == "coco" or (options.probe and set(options.probe) <= DETECTORS):
        from cliptex.cli.detecting import detection_costs

        return f"{options.model}\n{cost_table(detection_costs(options, encoder), device)}"
    costs = [cost_of(job, encoder) for job in _jobs(options)]
    if options.dataset is None and not options.probe:
        from cliptex.probes.cost_detection import paper_detection_costs

        costs[2:2] = paper_detection_costs(encoder)  # where Table 8 has them
    return f"{options.model}\n{cost_table(costs, device)}"


def _jobs(options: ProbeOptions) -> list[Job]:
    from dataclasses import replace

    from cliptex.probes.cost import Job, paper_jobs

    if options.dataset is None:
        options.refuse(("extra_coco",), "it adds to --dataset voc")
        return [replace(job, config=options.bank(job.task)) for job in paper_jobs()]
    train, _, test, config = example_sets(options)
    assert options.task != "detection"  # see `cliptex.cli.detecting`
    job = Job(
        task=options.task,
        dataset=train.name,
        train_images=len(train),
        test_images=len(test),
        outputs=train.task.channels,
        config=config,
    )
    return [job]
