"""Figures as inline SVG whose text and axes take the page's own colour and font.

Blends of two models are drawn as zero-shot against dense scores, one point per share.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cliptex.report.compare import values_by_seed
from cliptex.report.names import DENSE_TASKS, Measure, measures_in_order
from cliptex.results import Result

matplotlib.use("Agg")  # before pyplot-like imports: no display is needed or touched


from cliptex.files import parse_json
from cliptex.report.compare import ClassGap, Comparison, Interval
from cliptex.report.footnotes import UNLIKE
from cliptex.report.names import told_apart
from cliptex.report.verdicts import Verdict

INK = "#010203"  # stands for the page's text colour until the SVG is written
BETTER, WORSE, UNSURE = "#1a9e8f", "#d1495b", "#8d99ae"
COLOURS = {"better": BETTER, "worse": WORSE, "not kept": WORSE}
NOT_SHOWN = " (not shown)"
LINES = ("#8d99ae", "#1a9e8f", "#e09f3e", "#5b6ee1", "#d1495b", "#7a9e3f", "#b56fd6")
POINTS_PER_CURVE = 120
WIDTH = 10.5  # inches: 11 pt text comes out at about the page's own size
STYLE: dict = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def gain_chart(found: Sequence[Verdict], *, smoke: bool = False) -> str:
    """Bars of relative improvement in %, like the paper's Fig. 1c, as an SVG element.

    The sign is turned where lower is better, so right is always better. Whiskers are 95 %
    intervals. Coloured bars are shown gains and losses, of which a smoke run has none; the label
    says where a control does as well.
    """
    colours = {} if smoke else COLOURS
    drawn = [v for v in found if math.isfinite(v.comparison.relative.mean)]
    shown = [v.comparison for v in drawn]
    with matplotlib.rc_context(figure_style("gain")):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.36 * max(len(shown), 1)))
        axes = figure.subplots()
        rows = np.arange(len(shown))[::-1]
        axes.barh(
            rows,
            [c.relative.mean for c in shown],
            color=[colours.get(v.word, UNSURE) for v in drawn],
        )
        reach = _reach(shown)
        for row, comparison in zip(rows, shown, strict=True):
            _annotate(axes, row, comparison, reach)
        axes.axvline(0, color=INK, linewidth=0.8)
        measures = [c.measure for c in shown]
        details = told_apart(measures, always=True)
        signs = [
            (f" {UNLIKE}" if v.comparison.unlike else "")
            + (NOT_SHOWN if v.word == "not shown" else "")
            for v in drawn
        ]
        triples = zip(measures, details, signs, strict=True)
        labels = [f"{m.short} · {detail}{sign}" for m, detail, sign in triples]
        axes.set_yticks(rows, labels)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("relative improvement, %  (right is better)")
        axes.set_xlim(*_limits(shown, reach))
        return to_svg(figure)


def loss_curves(logs: Mapping[str, Path]) -> str:
    """One panel per loss term, one line per run, from `log.jsonl` files; "" where none has any.

    Runs whose names differ in `seedN` alone share a colour.
    """
    curves = {name: read_losses(path) for name, path in logs.items()}
    terms = list(dict.fromkeys(term for terms in curves.values() for term in terms))
    if not terms:
        return ""
    labels = list(dict.fromkeys(_without_seed(name) for name in curves))
    colours = {label: LINES[i % len(LINES)] for i, label in enumerate(labels)}
    columns = min(3, len(terms))
    height = math.ceil(len(terms) / columns)
    with matplotlib.rc_context(figure_style("losses")):
        figure = Figure(figsize=(WIDTH / 3 * columns, 2.4 * height + 0.5))
        panels = figure.subplots(height, columns, squeeze=False).ravel()
        for panel, term in zip(panels, terms, strict=False):
            for name, of_run in curves.items():
                if term in of_run:
                    label = _without_seed(name)
                    panel.plot(*_thin(*of_run[term]), label=label, color=colours[label])
            panel.set_title(term.removeprefix("loss_").replace("_", " "), fontsize=11)
        for panel in panels[len(terms) :]:
            panel.set_visible(False)
        lines = {name: line for p in panels for line, name in zip(*_legend(p), strict=True)}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
        return to_svg(figure)


def class_gap_chart(gaps: Sequence[ClassGap], number: int = 0) -> str:
    """Bars of IoU(ours) - IoU(baseline) in points per class, in their order, with support.

    number: of this chart on the page.
    """
    with matplotlib.rc_context(figure_style(f"classes {number}")):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(gaps)))
        axes = figure.subplots()
        rows = np.arange(len(gaps))[::-1]
        colours = [BETTER if gap.gap >= 0 else WORSE for gap in gaps]
        axes.barh(rows, [gap.gap for gap in gaps], color=colours)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(rows, [gap.label for gap in gaps])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("IoU gained, points")
        return to_svg(figure)


def read_losses(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """`loss…` terms of a training log: term -> (steps, values).

    A resumed run repeats steps; the later line counts. A last line cut off by a kill is skipped.
    """
    values: dict[str, dict[float, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if not isinstance(row, dict):
            continue
        for name, value in row.items():
            if name.startswith("loss") and isinstance(value, int | float) and "step" in row:
                values.setdefault(name, {})[row["step"]] = value
    ordered = {name: sorted(of_step.items()) for name, of_step in values.items()}
    return {name: ([s for s, _ in p], [v for _, v in p]) for name, p in ordered.items()}


def figure_style(salt: str) -> dict:
    """STYLE with element ids of its own, so that several figures can stand in one page."""
    return {**STYLE, "svg.hashsalt": salt}


def _thin(steps: list[float], values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Means of at most POINTS_PER_CURVE runs of neighbours: smoother, and a smaller page."""
    size = math.ceil(len(steps) / POINTS_PER_CURVE)
    starts = np.arange(0, len(steps), size)
    counts = np.diff(np.append(starts, len(steps)))
    s, v = (np.add.reduceat(np.asarray(a, dtype=np.float64), starts) for a in (steps, values))
    return s / counts, v / counts


def _reach(shown: Sequence[Comparison]) -> float:
    """Where whiskers are cut: two seeds of a noisy measure would else squeeze all bars to lines."""
    return 2 * max((abs(c.relative.mean) for c in shown), default=1.0)


def _ends(interval: Interval, reach: float) -> tuple[float, float]:
    low = interval.mean if interval.low is None else max(interval.low, -reach)
    high = interval.mean if interval.high is None else min(interval.high, reach)
    return low, high


def _limits(shown: Sequence[Comparison], reach: float) -> tuple[float, float]:
    """x limits with room for the numbers at the bars' ends."""
    low = min([0.0, *(_ends(c.relative, reach)[0] for c in shown)])
    high = max([0.0, *(_ends(c.relative, reach)[1] for c in shown)])
    room = 0.2 * ((high - low) or 1.0)
    return (low - room if low < 0 else low, high + room if high > 0 else high + room / 4)


def _annotate(axes: Axes, row: float, comparison: Comparison, reach: float) -> None:
    relative = comparison.relative
    low, high = _ends(relative, reach)
    if low < high:  # with one seed there is no interval
        axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
    right = relative.mean >= 0
    axes.annotate(
        f"{relative.mean:+.1f} %".replace("-", "−"),
        (max(high, 0) if right else min(low, 0), row),
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
    )


def _without_seed(name: str) -> str:
    return re.sub(r"[-_/]?seed\d+", "", name) or name


def _legend(panel: Axes) -> tuple[list, list]:
    return panel.get_legend_handles_labels()


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that scales with the page."""
    figure.set_layout_engine("constrained")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every figure names its groups alike
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font-size: \1px", text)
    return re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", text, count=1)


_BLEND = re.compile(r"blend-(\d*\.?\d+(?:e-?\d+)?)")
Point = tuple[float, float, float]  # share, zero-shot score, dense score
COLUMNS = 3


def blend_share(model: str) -> float | None:
    """The share that a model's name tells, 0.25 of `blend-0.25`; None for other names."""
    match = _BLEND.fullmatch(model)
    return None if match is None else float(match[1])


def blend_points(rows: Sequence[Result]) -> dict[tuple[Measure, Measure], list[Point]]:
    """(zero-shot measure, dense measure) -> points by share, means over seeds.

    The zero-shot measure is the first one of classification, or else of retrieval, that blends
    have; a pair needs two shares that have both.
    """
    shares = {row.model: s for row in rows if (s := blend_share(row.model)) is not None}
    mine = [row for row in rows if row.model in shares]
    measures = measures_in_order(mine)
    across = [m for task in ("zeroshot", "retrieval") for m in measures if m.task == task][:1]
    found = {}
    for x in across:
        for y in (m for m in measures if m.task in DENSE_TASKS):
            points = [
                (share, _mean(mine, x, model), _mean(mine, y, model))
                for model, share in sorted(shares.items(), key=lambda pair: pair[1])
            ]
            kept = [p for p in points if math.isfinite(p[1]) and math.isfinite(p[2])]
            if len(kept) > 1:
                found[x, y] = kept
    return found


def _mean(rows: Sequence[Result], measure: Measure, model: str) -> float:
    values = list(values_by_seed(rows, measure, model).values())
    return float(np.mean(values)) if values else math.nan


def blend_chart(rows: Sequence[Result]) -> str:
    """One panel per dense measure as an SVG element; "" where the rows hold no blends.

    Up and right are better on every axis.
    """
    panels = blend_points(rows)
    if not panels:
        return ""
    columns = min(COLUMNS, len(panels))
    height = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(figure_style("blends")):
        figure = Figure(figsize=(WIDTH / COLUMNS * columns, 2.8 * height))
        axes = figure.subplots(height, columns, squeeze=False).ravel()
        for panel, ((x, y), points) in zip(axes, panels.items(), strict=False):
            _draw(panel, x, y, points)
        for panel in axes[len(panels) :]:
            panel.set_visible(False)
        return to_svg(figure)


def _draw(panel: Axes, x: Measure, y: Measure, points: Sequence[Point]) -> None:
    _, across, up = zip(*points, strict=True)
    panel.plot(across, up, marker="o", color=BETTER)
    for share, score, dense in points:
        panel.annotate(f"{share:g}", (score, dense), xytext=(4, 4), textcoords="offset points")
    panel.margins(0.15)
    panel.set_xlabel(f"{x.short} · {x.dataset}")
    panel.set_ylabel(f"{y.short} · {y.dataset}")
    if x.sign < 0:
        panel.invert_xaxis()
    if y.sign < 0:
        panel.invert_yaxis()
