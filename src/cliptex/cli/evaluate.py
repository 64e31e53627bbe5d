"""`cliptex probe` and `cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes

from cliptex.cli.probing import (
    ProbeOptions,
    checkpoint_of,
    cost_text,
    fast_rows,
    learnt_from,
    paper_rows,
)


def probe(options: Annotated[ProbeOptions, OmitArgPrefixes]) -> None:
    """Train probes on a frozen image encoder and append their scores to a results file."""
    from cliptex.results import append_results

    if options.dry_run:
        print(cost_text(options))
        return
    if options.out is None:
        raise ValueError("a probe needs --out, the results file (or --dry-run)")
    rows = paper_rows(options) if options.recipe == "paper" else fast_rows(options)
    append_results(options.out, rows)
    _show(rows, options.out)


def zeroshot(
    model: str,
    dataset: Literal["folder", "karpathy"],
    root: Path,
    out: Path,
    name: str | None = None,
    images: Path | None = None,
    split: str = "test",
    resolution: int = 224,
    leak: bool = False,
) -> None:
    """Zero-shot classification (image folder) or retrieval (Karpathy JSON), without training.

    Args:
        model: as for `cliptex probe`.
        dataset: folder (one folder per class, its name is the prompt) or karpathy.
        root: the folder that holds the splits, or the Karpathy JSON.
        out: results file (JSON lines) to append to.
        name: how the model is called in the results; by default as `model`.
        images: folder of the images of a Karpathy JSON; by default the folder it lies in.
        split: split that is scored.
        resolution: side in pixels to which every picture is resized.
        leak: mark the rows: an expert learnt from this data set. Done by itself where the model's
            folder says so (provenance.json).
    """
    from cliptex.datasets.folders import ImageFolder
    from cliptex.datasets.karpathy import Karpathy
    from cliptex.models.clip import load_clip
    from cliptex.results import append_results
    from cliptex.zeroshot.classify import run_zeroshot
    from cliptex.zeroshot.encode import ZeroShotConfig
    from cliptex.zeroshot.retrieve import run_retrieval

    names: dict[str, Any] = {"model": name or model, "checkpoint": checkpoint_of(model)}
    config = ZeroShotConfig(resolution=resolution)
    clip = load_clip(model)
    if dataset == "folder":
        images_of = ImageFolder(root, split)
        names["leak"] = leak or learnt_from(model, images_of)
        outcome = run_zeroshot(clip, images_of, config, **names)
    else:
        pairs = Karpathy(root, root.parent if images is None else images, split)
        names["leak"] = leak or learnt_from(model, pairs)
        outcome = run_retrieval(clip, pairs, config, **names)
    append_results(out, outcome.results)
    _show(outcome.results, out)


def _show(rows: list[Any], out: Path) -> None:
    for row in rows:
        kind = f" {row.probe}" if row.probe else ""
        label = f"{row.task}{kind} {row.metric} on {row.dataset}, seed {row.seed}"
        print(f"{row.model}  {label}: {row.value:.4g} (n {row.n})")
    print(out)
