"""`cliptex probe` and `cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from cliptex.cli.costing import cost_text
from cliptex.cli.detecting import detection_rows
from cliptex.cli.probe_rows import fast_rows, paper_rows
from cliptex.cli.probing import ProbeOptions
from cliptex.cli.zeroshot import ZeroShotOptions, zeroshot_outcome

PER_IMAGE = "per_image"  # where the report looks for it, beside the rows


def probe(options: Annotated[ProbeOptions, OmitArgPrefixes, arg(name="probe")]) -> None:
    """Train probes on a frozen image encoder and append their scores to a results file."""
    from cliptex.results import append_results

    if options.dry_run:
        print(cost_text(options))
        return
    if options.out is None:
        raise ValueError("a probe needs --out, the results file (or --dry-run)")
    if options.task == "detection":
        found = detection_rows(options)
    else:
        found = fast_rows(options) if options.recipe == "fast" else paper_rows(options)
    append_results(options.out, found.rows)
    for outcome in found.outcomes:
        outcome.save_per_image(options.out.parent / PER_IMAGE)
    _show(found.rows, options.out)
    if found.errors:
        raise ValueError("; ".join(found.errors))


def zeroshot(options: Annotated[ZeroShotOptions, OmitArgPrefixes, arg(name="zero-shot")]) -> None:
    """Zero-shot classification, retrieval, or segmentation from text, without training."""
    from cliptex.results import append_results

    outcome = zeroshot_outcome(options)
    append_results(options.out, outcome.results)
    outcome.save_per_image(options.out.parent / PER_IMAGE)
    _show(outcome.results, options.out)


def _show(rows: list[Any], out: Path) -> None:
    for row in rows:
        kind = f" {row.probe}" if row.probe else ""
        name = row.protocol.get("name")
        metric = f"{row.metric} ({name})" if name else row.metric
        label = f"{row.task}{kind} {metric} on {row.dataset}, seed {row.seed}"
        print(f"{row.model}  {label}: {row.value:.4g} (n {row.n})")
    print(out)
