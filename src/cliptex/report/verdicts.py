"""What a comparison shows: one verdict a test, held against the controls of that test."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cliptex.report.bootstrap import ImageComparison, compare_images
from cliptex.report.comparability import control_owner
from cliptex.report.compare import Comparison, compare, rows_of, scaled, share
from cliptex.report.names import DENSE_TASKS, PRIMARY, Measure, is_control, model_name
from cliptex.results import Result

KEPT_MARGIN = 0.05
"""Share of the baseline's value: kept is what lost less than this, by the whole interval."""
MOST = 0.5
"""Share of the gain from which a control has as much of it as the gain that is left."""

Word = Literal[
    "better", "not shown", "unclear", "worse", "kept", "not kept", "not enough data", "no interval"
]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A control, or training with placebo labels, on one test.

    `lead` compares `ours` with it; `share` is the part of ours' gain over the baseline that it
    reaches, NaN where ours gains nothing or no seed has all three.
    """

    model: str
    lead: Comparison
    share: float

    @property
    def name(self) -> str:
        """As sentences call it."""
        return "placebo labels" if self.model.endswith("-placebo") else model_name(self.model)

    @property
    def matches(self) -> bool:
        """Whether it does as well as ours.

        So it does unless the interval of ours' lead is above zero (without an interval: the lead
        itself), and where it reaches `MOST` of ours' gain.
        """
        lead = self.lead.improvement
        ahead = lead.above_zero if lead.low is not None else lead.mean > 0
        return not ahead or self.share >= MOST


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`ours` against the baseline on one test, by the test's primary metric."""

    comparison: Comparison
    rivals: tuple[Rival, ...]

    @property
    def measure(self) -> Measure:
        """The primary metric of the test."""
        return self.comparison.measure

    @property
    def dense(self) -> bool:
        """Whether a gain is what is hoped for; elsewhere, that nothing is lost."""
        return self.measure.task in DENSE_TASKS

    @property
    def matched(self) -> tuple[Rival, ...]:
        """The rivals that do as well as ours."""
        return tuple(rival for rival in self.rivals if rival.matches)

    @property
    def word(self) -> Word:
        """What the test shows.

        A gain is "better" where its interval is above zero and no rival does as well; what is
        only to be kept is "kept" where the whole interval lies above a loss of `KEPT_MARGIN` of
        the baseline's value, and no control that learnt nothing does as well.
        """
        gain = self.comparison.improvement
        if gain.above_zero:
            return "not shown" if self.matched else "better"
        if self.dense:
            return self._of_dense()
        if any(is_control(rival.model) for rival in self.matched):
            return "not shown"
        if gain.low is not None and gain.low >= -KEPT_MARGIN * abs(self.comparison.baseline):
            return "kept"
        return "not kept" if gain.below_zero else "not enough data"

    def _of_dense(self) -> Word:
        gain = self.comparison.improvement
        if gain.low is None:
            return "no interval"
        return "worse" if gain.below_zero else "unclear"


def verdicts(
    rows: Sequence[Result],
    comparisons: Sequence[Comparison],
    *,
    ours: str,
    baseline: str,
    start: str = "",
    per_image: Sequence[Path] = (),
) -> list[Verdict]:
    """One per test that `comparisons` (of `ours` with `baseline`) cover, in their order.

    Leaked tests have none. Rivals are the controls of these models, or of `start`, and the model
    `OURS-placebo`; over one common seed they are compared by values in the folders `per_image`.
    """
    clean = [c for c in comparisons if not c.leak]
    primary = set(primary_measures(rows, [c.measure for c in clean]))
    owners = {start, baseline, ours}
    found = []
    for comparison in clean:
        if comparison.measure not in primary:
            continue
        measure = comparison.measure
        mine = [row for row in rows if Measure.of(row) == measure]
        rivals = []
        for model in _rivals(mine, ours, owners):
            lead = compare(mine, measure, ours, model)
            if lead is not None:
                (lead,) = with_images([lead], _over_images(mine, lead, per_image, ours, model))
                part = share(mine, measure, part=model, whole=ours, base=baseline)
                rivals.append(Rival(model=model, lead=lead, share=part))
        found.append(Verdict(comparison=comparison, rivals=tuple(rivals)))
    return found


def _rivals(rows: Sequence[Result], ours: str, owners: Collection[str]) -> list[str]:
    models = dict.fromkeys(
        row.model
        for row in rows
        if row.model == f"{ours}-placebo"
        or (is_control(row.model) and (control_owner(row) or ours) in owners)
    )
    return list(models)


def _over_images(
    rows: Sequence[Result], lead: Comparison, per_image: Sequence[Path], ours: str, other: str
) -> list[ImageComparison]:
    if len(lead.seeds) > 1:
        return []
    pair = [row for m in (ours, other) for row in rows_of(rows, lead.measure, m)]
    return compare_images(pair, per_image, ours, other)


def with_images(
    comparisons: Sequence[Comparison], found: Sequence[ImageComparison]
) -> list[Comparison]:
    """`comparisons`, where those of one seed have the intervals over test images, if there are."""
    over = {(c.measure, c.seed): c.difference for c in found if c.difference is not None}
    changed = []
    for c in comparisons:
        interval = over.get((c.measure, c.seeds[0])) if len(c.seeds) == 1 else None
        if interval is not None:
            better = scaled(interval, c.measure.sign)
            relative = scaled(better, 100 / abs(c.baseline)) if c.baseline else c.relative
            c = replace(
                c, difference=interval, improvement=better, relative=relative, over="images"
            )
        changed.append(c)
    return changed


def primary_measures(rows: Sequence[Result], among: Collection[Measure]) -> list[Measure]:
    """Of each test, the one of the measures `among` that counts.

    A test is a task, data set and probe (of one recipe, split and number of images), and each
    direction of retrieval; other metrics, and other rules that score the same predictions, tell
    nearly the same again. The first of `PRIMARY` that there is counts, or else the first metric.
    """
    tests: dict[tuple[object, ...], list[Measure]] = {}
    for row in rows:
        measure = Measure.of(row)
        if measure in among:
            of_test = tests.setdefault(_test_of(row), [])
            if measure not in of_test:
                of_test.append(measure)
    return [min(of_test, key=_rank) for of_test in tests.values()]


def _rank(measure: Measure) -> int:
    first = PRIMARY.get(measure.task, ())
    return first.index(measure.metric) if measure.metric in first else len(first)


def _test_of(row: Result) -> tuple[object, ...]:
    protocol = {key: value for key, value in row.protocol.items() if key != "name"}
    variant = row.model_copy(update={"protocol": protocol}).variant
    way = row.metric.partition("_")[0] if row.task == "retrieval" else ""
    return row.task, row.dataset, row.probe, row.n, variant, way
