"""One self-contained HTML file from the rows and pictures of a run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cliptex.files import write_atomic
from cliptex.report.compare import compare_all, compare_images
from cliptex.report.figures import class_gap_chart, gain_chart, loss_curves
from cliptex.report.headline import headline
from cliptex.report.names import EXPERT_PREFIX, model_name, task_name
from cliptex.report.parts import find_logs, read_environment, read_panels, read_stages
from cliptex.report.tables import control_rows, expert_rows, interval_text, model_order, task_tables
from cliptex.results import Result, read_results

PER_IMAGE = "per_image"
CLASS_IOU = "class_iou"
"""Key of a result's protocol that may hold {class: IoU in %}."""


def write_report(
    run_folder: Path | Sequence[Path],
    out: Path,
    *,
    title: str,
    baseline: str = "clip-ft",
    ours: str = "cliptex",
    start: str = "clip",
    logs: Mapping[str, Path] | None = None,
) -> None:
    """Write the report of a run (or of runs that differ in their seed) to the HTML file `out`.

    Reads `results.jsonl`, `per_image/*.npz`, `panels/*.json`, `*/log.jsonl` (or the given `logs`),
    `*/stage.json` and `environment.json`. What is absent is said on the page. Raises
    FileNotFoundError without `results.jsonl` and ValueError for rows that do not fit.
    """
    folders = [run_folder] if isinstance(run_folder, Path) else list(run_folder)
    rows = [row for folder in folders for row in read_results(folder / "results.jsonl")]
    panels = [panel for folder in folders for panel in read_panels(folder / "panels")]
    curves = loss_curves(dict(logs) if logs is not None else find_logs(folders))
    content = {
        "title": title,
        **_measured(rows, folders[0] / PER_IMAGE, start, baseline, ours),
        "panels": panels,
        "curves": Markup(curves),
        "absent": _absent(rows, (start, baseline, ours), bool(panels), bool(curves)),
        "stages": [(folder.name, read_stages(folder)) for folder in folders],
        "environment": read_environment(folders[0]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_atomic(out, _render(content).encode("utf-8"))


def _measured(
    rows: list[Result], per_image: Path, start: str, baseline: str, ours: str
) -> dict[str, object]:
    """What the page says from the result rows and the per-image values alone."""
    models = model_order(rows, [start, baseline, ours])
    comparisons = compare_all(rows, ours, baseline)
    return {
        "ours": ours,
        "baseline": baseline,
        "headline": headline(comparisons, ours=ours, baseline=baseline),
        "gain": Markup(gain_chart(comparisons)) if comparisons else "",
        "tables": task_tables(rows, models, ours=ours, baseline=baseline),
        "image_differences": [
            (c.measure, c.seed, c.n, interval_text(c.measure, c.difference))
            for c in compare_images(rows, per_image, ours, baseline)
        ],
        "controls": control_rows(rows, ours=ours, baseline=baseline),
        "experts": expert_rows(rows),
        "class_gaps": _class_gaps(rows, ours, baseline),
        "protocols": protocol_rows(rows),
        "leak": any(row.leak for row in rows),
        "seeds": sorted({row.seed for row in rows}),
        "rows": len(rows),
    }


def protocol_rows(rows: Sequence[Result]) -> list[tuple[str, str, str]]:
    """(test, models, protocol as JSON): what all rows of a test share, then what differs."""
    tests: dict[str, dict[str, dict[str, str]]] = {}  # test -> model and seed -> key -> JSON
    for row in rows:
        name = f"{task_name(row.task)} · {row.dataset}"
        name += f" · {row.probe} probe" if row.probe else ""
        of_model = tests.setdefault(name, {}).setdefault(f"{model_name(row.model)}, {row.seed}", {})
        for key, value in row.protocol.items():
            if key != CLASS_IOU:
                of_model[key] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    found = []
    for name, models in tests.items():
        first = next(iter(models.values()))
        common = {k for k in first if all(p.get(k) == first[k] for p in models.values())}
        found.append((name, "all", _lines(first, common)))
        for model, protocol in models.items():
            if own := protocol.keys() - common:
                found.append((name, model, _lines(protocol, own)))
    return found


def _lines(protocol: Mapping[str, str], keys: Collection[str]) -> str:
    return "\n".join(f"{key}: {protocol[key]}" for key in sorted(keys))


def _class_gaps(rows: Sequence[Result], ours: str, baseline: str) -> list[tuple[str, Markup]]:
    """(data set, chart) per segmentation measure whose rows carry IoU per class; first seed."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        per_class = row.protocol.get(CLASS_IOU)
        if isinstance(per_class, dict):
            values = {str(k): float(v) for k, v in per_class.items() if v is not None}
            found.setdefault((row.dataset, row.model), values)
    names = [name for name, model in found if model == ours and (name, baseline) in found]
    return [
        (name, Markup(class_gap_chart(found[name, ours], found[name, baseline]))) for name in names
    ]


def _absent(rows: Sequence[Result], models: Sequence[str], panels: bool, curves: bool) -> list[str]:
    present = {row.model for row in rows}
    notes = [f"There are no rows of {model_name(m)}." for m in models if m not in present]
    if not any(model.startswith(EXPERT_PREFIX) for model in present):
        notes.append("The experts' own held-out scores are not in the results.")
    if not panels:
        notes.append("There are no sample pictures (panels/*.json).")
    if not curves:
        notes.append("There are no training logs (log.jsonl).")
    return notes


def _render(content: Mapping[str, object]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["model_name"] = model_name
    environment.filters["task_name"] = task_name
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment.get_template("page.html.j2").render(content)
