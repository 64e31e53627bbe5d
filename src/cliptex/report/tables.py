"""Model × metric tables from result rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.report.compare import Comparison, Interval, compare, share, values_by_seed
from cliptex.report.names import (
    DENSE_TASKS,
    EXPERT_PREFIX,
    Measure,
    measures_in_order,
    model_name,
    number,
)
from cliptex.results import Result

LEAK_MARK = "†"
ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model on one measure: mean and sample deviation over seeds; sd is None for one seed."""

    mean: float
    sd: float | None
    seeds: int
    leak: bool
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


@dataclass(frozen=True, kw_only=True)
class Table:
    """One task: a row of cells per model (None where a model has no value), and the difference."""

    task: str
    columns: tuple[Column, ...]
    models: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    differences: tuple[str, ...]


def model_order(rows: Sequence[Result], leading: Sequence[str]) -> list[str]:
    """`leading` models first, then the others as they appear; experts are left out."""
    found = dict.fromkeys(row.model for row in rows if not row.model.startswith(EXPERT_PREFIX))
    first = [model for model in leading if model in found]
    return first + [model for model in found if model not in first]


def task_tables(
    rows: Sequence[Result], models: Sequence[str], *, ours: str, baseline: str
) -> list[Table]:
    """A table per task of the rows of `models`, best value marked; controls do not compete.

    A control (a model named `OURS-something`) saw what nobody has in life, so it may not be best.
    """
    kept = [row for row in rows if row.model in models]
    measures = measures_in_order(kept)
    tables = []
    for task in dict.fromkeys(measure.task for measure in measures):
        columns = [_column(kept, m) for m in measures if m.task == task]
        by_column = [_cells(kept, column.measure, models, ours) for column in columns]
        here = [i for i in range(len(models)) if any(cells[i] for cells in by_column)]
        comparisons = [compare(kept, c.measure, ours, baseline) for c in columns]
        tables.append(
            Table(
                task=task,
                columns=tuple(columns),
                models=tuple(models[i] for i in here),
                cells=tuple(tuple(cells[i] for cells in by_column) for i in here),
                differences=tuple(difference_text(c) for c in comparisons),
            )
        )
    return tables


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
        if of_seeds and not model.startswith(f"{ours}-")
    }
    best = {model for model, score in scores.items() if score == max(scores.values())}
    leaks = {row.model for row in rows if row.leak and Measure.of(row) == measure}
    return [
        _cell(measure, values[model], leak=model in leaks, best=model in best) for model in models
    ]


def _cell(measure: Measure, values: Sequence[float], *, leak: bool, best: bool) -> Cell | None:
    if not values:
        return None
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    text = number(mean, measure.name)
    text += f" ± {number(sd, measure.name)}" if sd is not None else ""
    text += LEAK_MARK if leak else ""
    return Cell(mean=mean, sd=sd, seeds=len(values), leak=leak, best=best, text=text)


@dataclass(frozen=True, kw_only=True)
class ControlRow:
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


def control_rows(rows: Sequence[Result], *, ours: str, baseline: str) -> list[ControlRow]:
    """Shares per dense measure, where controls were trained."""
    perfect, placebo = f"{ours}-perfect", f"{ours}-placebo"
    found = []
    for measure in measures_in_order([row for row in rows if row.model in (perfect, placebo)]):
        if measure.task in DENSE_TASKS:
            found.append(
                ControlRow(
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
