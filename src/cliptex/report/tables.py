"""Model × metric tables from result rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.report.compare import Comparison, Interval, compare, share, values_by_seed
from cliptex.report.marks import marks_of
from cliptex.report.names import (
    DENSE_TASKS,
    EXPERT_PREFIX,
    Measure,
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
    """A measure with the sizes of its test set (more than one where rows disagree)."""

    measure: Measure
    sizes: tuple[int, ...]

    @property
    def arrow(self) -> str:
        """↑ where higher is better."""
        return "↑" if self.measure.better == "higher" else "↓"

    @property
    def details(self) -> tuple[str, ...]:
        """Data set, number of images, probe and how it was used."""
        size = f"n = {'/'.join(map(str, self.sizes))}"
        parts = (self.measure.dataset, size, self.measure.probe_text, self.measure.variant)
        return tuple(part for part in parts if part)


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
    others = [model for model in found if model not in first and model not in CONTROLS]
    return first + others + [model for model in CONTROLS if model in found and model not in first]


def task_tables(
    rows: Sequence[Result], models: Sequence[str], *, ours: str, baseline: str
) -> list[Table]:
    """Tables of the rows of `models`, in the order of tasks, best value marked.

    What is not a competitor may not be best: a control of training (a model named
    `OURS-something`) saw what nobody has in life, and `CONTROLS` have learnt nothing.
    """
    kept = [row for row in rows if row.model in models]
    return [
        _table(kept, title, measures, models, ours, baseline)
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
        tests: dict[tuple[str, str, bool], list[Measure]] = {}
        for measure in columns:
            of_masks = measure.metric.endswith("_mask")  # detection's twelve numbers: six and six
            tests.setdefault((measure.dataset, measure.test, of_masks), []).append(measure)
        for (dataset, _, _), of_test in tests.items():
            parts = (task_name(task), dataset, of_test[0].probe_text)
            groups.append((" · ".join(part for part in parts if part), of_test))
    return groups


def _table(
    rows: Sequence[Result],
    title: str,
    measures: Sequence[Measure],
    models: Sequence[str],
    ours: str,
    baseline: str,
) -> Table:
    by_column = [_cells(rows, measure, models, ours) for measure in measures]
    lines = [
        Line(model=model, cells=tuple(cells[i] for cells in by_column))
        for i, model in enumerate(models)
        if any(cells[i] for cells in by_column)
    ]
    comparisons = [compare(rows, measure, ours, baseline) for measure in measures]
    return Table(
        title=title,
        columns=tuple(_column(rows, measure) for measure in measures),
        lines=tuple(line for line in lines if line.model not in CONTROLS),
        differences=tuple(difference_text(c) for c in comparisons),
        controls=tuple(line for line in lines if line.model in CONTROLS),
    )


def difference_text(comparison: Comparison | None) -> str:
    """`+4.1 [2.0, 6.2]`, without the interval for one seed, a dash where there is none."""
    if comparison is None:
        return ABSENT
    return interval_text(comparison.measure, comparison.difference)


def interval_text(measure: Measure, interval: Interval) -> str:
    """`+4.1 [2.0, 6.2]`, in the decimals of the measure."""
    name = measure.name
    text = number(interval.mean, name, signed=True)
    if interval.low is not None and interval.high is not None:
        low, high = (number(v, name, signed=True) for v in (interval.low, interval.high))
        text += f" [{low}, {high}]"
    return text


def _column(rows: Sequence[Result], measure: Measure) -> Column:
    sizes = sorted({row.n for row in rows if Measure.of(row) == measure})
    return Column(measure=measure, sizes=tuple(sizes))


def _cells(
    rows: Sequence[Result], measure: Measure, models: Sequence[str], ours: str
) -> list[Cell | None]:
    values = {model: list(values_by_seed(rows, measure, model).values()) for model in models}
    scores = {
        model: measure.sign * float(np.mean(of_seeds))
        for model, of_seeds in values.items()
        if of_seeds and not model.startswith(f"{ours}-") and model not in CONTROLS
    }
    best = {model for model, score in scores.items() if score == max(scores.values())}
    of_measure = [row for row in rows if Measure.of(row) == measure]
    marks = {m: marks_of([row for row in of_measure if row.model == m]) for m in models}
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
