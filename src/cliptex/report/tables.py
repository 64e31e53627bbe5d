"""Model × metric tables from result rows, and what training and test images share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.report.comparability import unlike
from cliptex.report.compare import Comparison, Interval, rows_of, share, values_by_seed
from cliptex.report.footnotes import UNLIKE, marks_of
from cliptex.report.names import (
    DENSE_TASKS,
    EXPERT_PREFIX,
    Measure,
    is_control,
    measures_in_order,
    model_name,
    number,
    task_name,
)
from cliptex.results import CONTROLS, Result

ABSENT = "–"
WIDEST = 6
"""Columns up to which a task has one table; wider ones are cut by data set and probe."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model on one measure: mean and sample deviation over seeds; sd is None for one seed."""

    mean: float
    sd: float | None
    seeds: int
    marks: str
    best: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measure, and in what its models are not like for like ("" where they are)."""

    measure: Measure
    unlike: str

    @property
    def arrow(self) -> str:
        """↑ where higher is better."""
        return "↑" if self.measure.better == "higher" else "↓"

    @property
    def details(self) -> tuple[str, ...]:
        """Data set, number of images, probe, how it was used, and what differs between models."""
        m = self.measure
        differs = f"{UNLIKE} {self.unlike}" if self.unlike else ""
        return tuple(p for p in (m.dataset, f"n = {m.n}", m.probe_text, m.variant, differs) if p)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A model's cells, None where it has no value."""

    model: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One task, or one data set and probe of it: lines of models, the difference, and `controls`,
    which have learnt nothing and are no models."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    controls: tuple[Line, ...]

    @property
    def shared(self) -> tuple[str, ...]:
        """The details that all columns have, so that they need be said once."""
        first = self.columns[0].details
        return tuple(d for d in first if all(d in column.details for column in self.columns))


def model_order(rows: Sequence[Result], leading: Sequence[str]) -> list[str]:
    """`leading` models first, then the others as they appear, `CONTROLS` last; no experts."""
    found = dict.fromkeys(row.model for row in rows if not row.model.startswith(EXPERT_PREFIX))
    first = [model for model in leading if model in found]
    others = [model for model in found if model not in first]
    controls = [model for model in others if is_control(model)]
    return (
        first + [model for model in others if model not in controls] + sorted(controls, key=_rank)
    )


def _rank(control: str) -> tuple[int, str]:
    """Sorts controls as `CONTROLS` are, further ones after the first of their kind."""
    kinds = [control.startswith(kind) for kind in CONTROLS]
    return kinds.index(True), control


def task_tables(
    rows: Sequence[Result],
    models: Sequence[str],
    comparisons: Sequence[Comparison],
    *,
    ours: str,
) -> list[Table]:
    """Tables of the rows of `models`, in the order of tasks, best value marked.

    What is not a competitor may not be best: a control of training (a model named
    `OURS-something`) saw what nobody has in life, and `CONTROLS` have learnt nothing. Where one of
    the latter scores as well as the best competitor, none is marked. The differences are those of
    `comparisons`.
    """
    kept = [row for row in rows if row.model in models]
    return [
        _table(kept, title, measures, models, ours, {c.measure: c for c in comparisons})
        for title, measures in _groups(measures_in_order(kept))
    ]


def _groups(measures: Sequence[Measure]) -> list[tuple[str, list[Measure]]]:
    """(title, columns) of each table."""
    tasks: dict[str, list[Measure]] = {}
    for measure in measures:
        tasks.setdefault(measure.task, []).append(measure)
    groups: list[tuple[str, list[Measure]]] = []
    for task, columns in tasks.items():
        if len(columns) <= WIDEST:
            groups.append((task_name(task), columns))
            continue
        tests: dict[tuple[str, str, int, bool], list[Measure]] = {}
        for measure in columns:
            of_masks = measure.metric.endswith("_mask")  # detection's twelve numbers: six and six
            key = (measure.dataset, measure.test, measure.n, of_masks)
            tests.setdefault(key, []).append(measure)
        for (dataset, *_), of_test in tests.items():
            parts = (task_name(task), dataset, of_test[0].probe_text)
            groups.append((" · ".join(part for part in parts if part), of_test))
    return groups


def _table(
    rows: Sequence[Result],
    title: str,
    measures: Sequence[Measure],
    models: Sequence[str],
    ours: str,
    comparisons: Mapping[Measure, Comparison],
) -> Table:
    by_column = [_cells(rows, measure, models, ours) for measure in measures]
    lines = [
        Line(model=model, cells=tuple(cells[i] for cells in by_column))
        for i, model in enumerate(models)
        if any(cells[i] for cells in by_column)
    ]
    return Table(
        title=title,
        columns=tuple(_column(rows, measure, models) for measure in measures),
        lines=tuple(line for line in lines if not is_control(line.model)),
        differences=tuple(difference_text(comparisons.get(m)) for m in measures),
        controls=tuple(line for line in lines if is_control(line.model)),
    )


def difference_text(comparison: Comparison | None) -> str:
    """`+4.1 [2.0, 6.2]`, without the interval for one seed, a dash where there is none.

    The sign `UNLIKE` follows where the two are not like for like.
    """
    if comparison is None:
        return ABSENT
    sign = f" {UNLIKE}" if comparison.unlike else ""
    return interval_text(comparison.measure, comparison.difference) + sign


def interval_text(measure: Measure, interval: Interval) -> str:
    """`+4.1 [2.0, 6.2]`, in the decimals of the measure."""
    name = measure.name
    text = number(interval.mean, name, signed=True)
    if interval.low is not None and interval.high is not None:
        low, high = (number(v, name, signed=True) for v in (interval.low, interval.high))
        text += f" [{low}, {high}]"
    return text


def _column(rows: Sequence[Result], measure: Measure, models: Sequence[str]) -> Column:
    mine = [row for model in models for row in rows_of(rows, measure, model)]
    return Column(measure=measure, unlike=unlike(mine))


def _cells(
    rows: Sequence[Result], measure: Measure, models: Sequence[str], ours: str
) -> list[Cell | None]:
    values = {model: list(values_by_seed(rows, measure, model).values()) for model in models}
    scores = {
        model: measure.sign * float(np.mean(of_seeds))
        for model, of_seeds in values.items()
        if of_seeds and not model.startswith(f"{ours}-") and not is_control(model)
    }
    rivals = len(scores) > 1  # a single one is not the best of anything
    top = max(scores.values(), default=math.nan)
    unlearnt = [
        measure.sign * float(np.mean(of_seeds))
        for model, of_seeds in values.items()
        if of_seeds and is_control(model)
    ]
    matched = any(score >= top for score in unlearnt)
    best = {model for model, score in scores.items() if rivals and not matched and score == top}
    marks = {model: marks_of(rows_of(rows, measure, model)) for model in models}
    return [_cell(measure, values[m], marks=marks[m], best=m in best) for m in models]


def _cell(measure: Measure, values: Sequence[float], *, marks: str, best: bool) -> Cell | None:
    if not values:
        return None
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    text = number(mean, measure.name)
    text += f" ± {number(sd, measure.name)}" if sd is not None else ""
    return Cell(mean=mean, sd=sd, seeds=len(values), marks=marks, best=best, text=text + marks)


@dataclass(frozen=True, kw_only=True)
class TrainingControl:
    """Shares of a gain on one dense measure; `text` values are dashes where nothing can be said."""

    measure: Measure
    of_perfect: float
    placebo: float

    @property
    def of_perfect_text(self) -> str:
        """CLIPTeX's gain in % of the gain with perfect labels."""
        return _percent(self.of_perfect)

    @property
    def placebo_text(self) -> str:
        """The placebo's gain in % of CLIPTeX's gain."""
        return _percent(self.placebo)


def control_rows(rows: Sequence[Result], *, ours: str, baseline: str) -> list[TrainingControl]:
    """Shares per dense measure, where controls were trained."""
    perfect, placebo = f"{ours}-perfect", f"{ours}-placebo"
    found = []
    for measure in measures_in_order([row for row in rows if row.model in (perfect, placebo)]):
        if measure.task in DENSE_TASKS:
            found.append(
                TrainingControl(
                    measure=measure,
                    of_perfect=share(rows, measure, part=ours, whole=perfect, base=baseline),
                    placebo=share(rows, measure, part=placebo, whole=ours, base=baseline),
                )
            )
    return found


def _percent(value: float) -> str:
    return ABSENT if np.isnan(value) else f"{100 * value:.0f} %".replace("-", "−")


def expert_rows(rows: Sequence[Result]) -> list[tuple[str, str, str, str, int]]:
    """(expert, data set, metric, value, n) of the experts' own held-out scores."""
    found = []
    for row in rows:
        if row.model.startswith(EXPERT_PREFIX):
            name = Measure.of(row).name
            value = f"{number(row.value, name)}{' ' + name.unit if name.unit else ''}"
            found.append((model_name(row.model), row.dataset, name.label, value, row.n))
    return list(dict.fromkeys(found))


OVERLAP = "overlap"
"""The metric of such rows; they measure data, not a model."""


@dataclass(frozen=True)
class OverlapRow:
    """`value` (text) of the `n` images of `dataset` have a near-duplicate in `training`."""

    dataset: str
    training: str
    value: str
    n: int


def overlap_rows(rows: Sequence[Result]) -> list[OverlapRow]:
    """One per pair of sets; the last where a pair was compared again."""
    found = {
        (row.dataset, row.model): OverlapRow(row.dataset, row.model, _text(row), row.n)
        for row in rows
        if row.metric == OVERLAP
    }
    return list(found.values())


def _text(row: Result) -> str:
    """`5 (12.50 %)`."""
    return f"{round(row.n * row.value / 100)} ({row.value:.2f} %)"
