"""One self-contained HTML file from the rows and pictures of a run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cliptex.console import say
from cliptex.files import write_atomic
from cliptex.report.bootstrap import ImageComparison, compare_images
from cliptex.report.comparability import (
    CLASS_IOU,
    CLASS_SUPPORT,
    control_owner,
    controls_apart,
    with_splits,
)
from cliptex.report.compare import class_gaps, compare_all
from cliptex.report.figures import blend_chart, class_gap_chart, gain_chart, loss_curves
from cliptex.report.footnotes import UNLIKE, legend
from cliptex.report.headline import headline
from cliptex.report.names import (
    EXPERT_PREFIX,
    Measure,
    is_control,
    model_name,
    task_name,
    told_apart,
)
from cliptex.report.parts import (
    find_logs,
    read_environment,
    read_panels,
    read_stages,
    read_steps,
)
from cliptex.report.tables import (
    ABSENT,
    OVERLAP,
    Table,
    control_rows,
    difference_text,
    expert_rows,
    interval_text,
    model_order,
    overlap_rows,
    task_tables,
)
from cliptex.report.verdicts import Verdict, verdicts, with_images
from cliptex.results import CONTROLS, Result, read_results

PER_IMAGE = "per_image"
RESULTS = "results.jsonl"
OVER = {"seeds": "seeds", "images": "test images"}
PER_CLASS = (CLASS_IOU, CLASS_SUPPORT)
ROLES = {"start": "clip", "baseline": "clip-ft", "ours": "cliptex"}
"""The models that the page compares, as the paper's runs call them."""
FEW_STEPS = 100
FEW_IMAGES = 200
"""Fewer steps of a training, and tests of fewer images, are those of a smoke run."""


def write_report(
    runs: Path | Sequence[Path],
    out: Path,
    *,
    title: str,
    baseline: str | None = None,
    ours: str | None = None,
    start: str | None = None,
    logs: Mapping[str, Path] | None = None,
) -> None:
    """Write the report of a run (or of runs that differ in their seed) to the HTML file `out`.

    A run is a folder with `results.jsonl`, or the file itself, which may have another name. Beside
    it, `per_image/*.npz`, `panels/*.json`, `*/log.jsonl` (or the given `logs`), `*/stage.json` and
    `environment.json` are read. What is absent is said on the page; that nothing compares `ours`
    with `baseline` is said on standard error, too. `ROLES` are compared where no others are named.
    Raises FileNotFoundError without results, and ValueError for rows that do not fit and for a
    named model without rows. A smoke run (`FEW_STEPS`, `FEW_IMAGES`) claims nothing on its page,
    which is said on standard error, too.
    """
    paths = [runs] if isinstance(runs, Path) else list(runs)
    files = list(dict.fromkeys(p if p.is_file() else p / RESULTS for p in paths))
    folders = list(dict.fromkeys(file.parent for file in files))
    every = [row for file in files for row in read_results(file)]
    measured = controls_apart([row for row in every if row.metric != OVERLAP])
    rows = with_splits(measured)
    named = {"start": start, "baseline": baseline, "ours": ours}
    start, baseline, ours = _roles(rows, named)
    panels = [panel for folder in folders for panel in read_panels(folder / "panels")]
    curves = loss_curves(dict(logs) if logs is not None else find_logs(folders))
    measured_content = _measured(
        rows,
        [folder / PER_IMAGE for folder in folders],
        (start, baseline, ours),
        # beside a file of another name may lie runs that it knows nothing of
        read_steps([file.parent for file in files if file.name == RESULTS]),
    )
    content = {
        "title": title,
        **measured_content,
        "protocols": protocol_rows(measured),
        "overlaps": overlap_rows(every),
        "panels": panels,
        "curves": Markup(curves),
        "absent": _absent(rows, (start, baseline, ours), bool(panels), bool(curves)),
        "stages": [(folder.name, read_stages(folder)) for folder in folders],
        "environment": read_environment(folders[0]),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_atomic(out, _render(content).encode("utf-8"))
    if smoke := content["smoke"]:
        say(f"{out}: a smoke run ({'; '.join(smoke)}): its numbers show nothing but that it runs")


def _roles(rows: Sequence[Result], named: Mapping[str, str | None]) -> tuple[str, str, str]:
    """The model in each of `ROLES`; ValueError for a named one that has no rows."""
    models = model_order(rows, [])
    there = f"the results hold {', '.join(models) or 'no models'}"
    for role, model in named.items():
        if model is not None and model not in models:
            raise ValueError(f"`{role}` {model}: no such model, {there}")
    start, baseline, ours = (named[role] or ROLES[role] for role in ROLES)
    if not compare_all(rows, ours, baseline):
        say(
            f"the page compares no scores of {ours} (`ours`) and {baseline} (`baseline`), which "
            f"have no test and seed in common: {there}"
        )
    return start, baseline, ours


def _measured(
    rows: list[Result],
    per_image: Sequence[Path],
    roles: tuple[str, str, str],
    steps: Mapping[str, int],
) -> dict[str, Any]:
    """What the page says from rows, per-image values and the trainings' steps alone."""
    start, baseline, ours = roles
    models = model_order(rows, roles)
    over_images = compare_images(rows, per_image, ours, baseline)
    every = with_images(compare_all(rows, ours, baseline), over_images)
    about = {"ours": ours, "baseline": baseline, "start": start}
    found = verdicts(rows, every, **about, per_image=per_image)
    smoke = _smoke(found, steps)
    tables = task_tables(rows, models, every, ours=ours)
    shares = control_rows(rows, ours=ours, baseline=baseline)
    labels = _labels([row.measure for row in shares])
    return {
        "ours": ours,
        "baseline": baseline,
        "headline": headline(found, every, ours=ours, baseline=baseline, smoke=smoke),
        "smoke": smoke,
        "over": [text for key, text in OVER.items() if any(c.over == key for c in every)],
        "gain": Markup(gain_chart(found, smoke=bool(smoke))) if found else "",
        "verdicts": _verdict_rows(found),
        "tables": tables,
        "owners": _owners(rows),
        "image_differences": _image_differences(
            over_images, {c.measure for c in every if c.unlike}
        ),
        "shares": [(labels[row.measure], row) for row in shares],
        "blends": Markup(blend_chart(rows)),
        "experts": expert_rows(rows),
        "class_gaps": [
            (test, Markup(class_gap_chart(test.gaps, number)))
            for number, test in enumerate(class_gaps(rows, ours, baseline))
        ],
        "legend": [*legend(rows), *_of_unlike(tables)],
        "learnt_nothing": any(is_control(model) for model in models),
        "numbered": any(is_control(model) and model not in CONTROLS for model in models),
        "seeds": sorted({row.seed for row in rows}),
        "rows": len(rows),
    }


def _smoke(found: Sequence[Verdict], steps: Mapping[str, int]) -> list[str]:
    """Why this is a smoke run; nothing where it is none."""
    short = [count for count in steps.values() if count < FEW_STEPS]
    largest = max((v.measure.n for v in found), default=FEW_IMAGES)
    reasons = [f"trainings of {min(short)} steps"] if short else []
    return reasons + ([f"tests of at most {largest} images"] if largest < FEW_IMAGES else [])


def _owners(rows: Sequence[Result]) -> dict[str, str]:
    """Control -> ` of CLIP, CLIPTeX`: the models that its rows name, where they do."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if is_control(row.model) and (owner := control_owner(row)):
            found.setdefault(row.model, {})[model_name(owner)] = None
    return {model: f" of {', '.join(owners)}" for model, owners in found.items()}


def _verdict_rows(found: Sequence[Verdict]) -> dict[str, Any]:
    """The table of verdicts: names of the rivals, and per test its label, differences and word."""
    names = list(dict.fromkeys(rival.name for v in found for rival in v.rivals))
    labels = _labels([v.measure for v in found])
    lines = []
    for v in found:
        leads = {r.name: difference_text(r.lead) for r in v.rivals}
        cells = [leads.get(name, ABSENT) for name in names]
        lines.append((labels[v.measure], difference_text(v.comparison), cells, v.word))
    return {"rivals": names, "lines": lines if names else []}


def _image_differences(
    found: Sequence[ImageComparison], odd: Collection[Measure]
) -> list[tuple[str, str, int, int]]:
    """(measure, interval, images, seed) of every comparison; `odd` are not like for like."""
    labels = _labels([c.measure for c in found])
    signed = {m: f"{label} {UNLIKE}" if m in odd else label for m, label in labels.items()}
    texts = (
        c.problem if c.difference is None else interval_text(c.measure, c.difference) for c in found
    )
    return [(signed[c.measure], text, c.n, c.seed) for c, text in zip(found, texts, strict=True)]


def _of_unlike(tables: Sequence[Table]) -> list[str]:
    """What `UNLIKE` means, where a column bears it."""
    if not any(column.unlike for table in tables for column in table.columns):
        return []
    return [f"{UNLIKE} not like for like: the models of the column differ in what follows the sign"]


def _labels(measures: Sequence[Measure]) -> dict[Measure, str]:
    details = told_apart(measures, always=True)
    return {m: f"{m.short} · {detail}" for m, detail in zip(measures, details, strict=True)}


def protocol_rows(rows: Sequence[Result]) -> list[tuple[str, str, str]]:
    """(test, models, protocol as JSON): what all rows of a test share, then what differs.

    The mean answer, which no probe gave, shares little and is left out of what all share.
    """
    tests: dict[str, dict[str, list[Result]]] = {}  # test -> model and seed -> rows
    for row in rows:
        name = f"{task_name(row.task)} · {row.dataset}"
        test = Measure.of(row).test
        name += f" · {test}" if test else ""
        name += f" · n = {row.n}"
        who = f"{model_name(row.model)}, {row.seed}"
        tests.setdefault(name, {}).setdefault(who, []).append(row)
    found = []
    for name, by_model in tests.items():
        models = {who: _protocol_of(of_model) for who, of_model in by_model.items()}
        probed = {m: p for m, p in models.items() if "prediction" not in p} or models
        first = next(iter(probed.values()))
        common = {k for k in first if all(p.get(k) == first[k] for p in probed.values())}
        others = [model for model in models if model not in probed]
        who = f"all but {'; '.join(others)}" if others else "all"
        found.append((name, who, _lines(first, common)))
        for model, protocol in models.items():
            if own := protocol.keys() - (common if model in probed else set()):
                found.append((name, model, _lines(protocol, own)))
    return found


def _protocol_of(rows: Sequence[Result]) -> dict[str, str]:
    """Key -> value as JSON of one model's rows; `key of metric` where metrics have their own."""
    values: dict[str, dict[str, str]] = {}  # key -> metric -> JSON
    for row in rows:
        for key, value in row.protocol.items():
            if key not in PER_CLASS:
                text = json.dumps(value, sort_keys=True, ensure_ascii=False)
                values.setdefault(key, {})[row.metric] = text
    found = {}
    for key, of_metric in values.items():
        one = (
            len(of_metric) == len({row.metric for row in rows}) and len({*of_metric.values()}) == 1
        )
        for metric, text in of_metric.items():
            found[key if one else f"{key} of {metric}"] = text
    return found


def _lines(protocol: Mapping[str, str], keys: Collection[str]) -> str:
    return "\n".join(f"{key}: {protocol[key]}" for key in sorted(keys))


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
