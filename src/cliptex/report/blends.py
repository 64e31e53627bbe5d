"""What blends of two models keep and gain: zero-shot against dense scores, one point per share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cliptex.report.compare import values_by_seed
from cliptex.report.figures import BETTER, WIDTH, figure_style, to_svg
from cliptex.report.names import DENSE_TASKS, Measure, measures_in_order
from cliptex.results import Result

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
