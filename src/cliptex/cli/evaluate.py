"""`cliptex probe` and `cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from cliptex.cli.costing import cost_text
from cliptex.cli.detecting import detection_rows
from cliptex.cli.help import verb
from cliptex.cli.probe_checks import check_options
from cliptex.cli.probe_rows import fast_rows, paper_rows
from cliptex.cli.probing import ProbeOptions
from cliptex.cli.rows import check_writable, record
from cliptex.cli.zeroshot import ZeroShotOptions, zeroshot_outcome


@verb(
    "cliptex probe --model playroom --dataset voc --root runs/demo/home/VOCdevkit"
    " --resolution 128 --out results.jsonl",
    "cliptex probe --model open_clip:ViT-B-16 --recipe paper --dry-run",
    first="model dataset root out name recipe probe lr device dry_run",
)
def probe(options: Annotated[ProbeOptions, OmitArgPrefixes, arg(name="probe")]) -> None:
    """Train probes on a frozen image encoder and append their scores to a results file."""
    from cliptex.probes.processes import wait_for_others

    check_options(options)
    if options.dry_run:
        print(cost_text(options))
        return
    if options.out is None:
        raise ValueError("a probe needs --out, the results file (or --dry-run)")
    check_writable(options.out)
    if options.task == "detection":
        found = detection_rows(options)
    else:
        found = fast_rows(options) if options.recipe == "fast" else paper_rows(options)
    print(options.out)
    wait_for_others()
    if found.errors:
        raise ValueError("; ".join(found.errors))


@verb(
    "cliptex zeroshot --model playroom --dataset folder"
    " --root runs/demo/home/classes --split test --out results.jsonl",
    "cliptex zeroshot --model open_clip:ViT-B-16/openai --dataset folder"
    " --root imagenet --split val --out results.jsonl",
    first="model dataset root out name split templates classes resolution device",
)
def zeroshot(options: Annotated[ZeroShotOptions, OmitArgPrefixes, arg(name="zero-shot")]) -> None:
    """Zero-shot classification, retrieval, or segmentation from text, without training."""
    check_writable(options.out)
    outcome = zeroshot_outcome(options)
    record(options.out, outcome, {"test_split": options.chosen_split()})
    print(options.out)
