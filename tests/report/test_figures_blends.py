"""The curve of blends in the report."""

from __future__ import annotations

import pytest

from cliptex.report.figures import blend_chart, blend_points, blend_share
from cliptex.report.page import write_report
from cliptex.results import Result, append_results

NAMES = {"task": "zeroshot", "dataset": "rooms", "metric": "top1", "better": "higher"}


@pytest.fixture
def rows(make_row) -> list[Result]:
    """Three shares of two seeds, a fourth without a dense score, and models that are no blends."""
    found = []
    for share, top1, absrel in (("0.5", 58.0, 0.4), ("0", 60.0, 0.5), ("1", 50.0, 0.3)):
        for seed, more in ((0, 0.0), (1, 2.0)):
            name = f"blend-{share}"
            found += [make_row(name, top1 + more, seed=seed, **NAMES)]
            found += [make_row(name, absrel, seed=seed)]
    return [
        *found,
        make_row("blend-0.75", 55.0, **NAMES),
        make_row("clip", 40.0, **NAMES),
        make_row("clip", 0.6),
    ]


def test_names() -> None:
    assert [blend_share(n) for n in ("blend-0.25", "blend-1", "blend", "clip-ft", "blend-x")] == [
        0.25,
        1.0,
        None,
        None,
        None,
    ]


def test_points_are_means_by_share(rows: list[Result]) -> None:
    ((x, y), points), *others = blend_points(rows).items()
    assert not others and (x.metric, y.metric) == ("top1", "absrel")
    assert points == [(0.0, 61.0, 0.5), (0.5, 59.0, 0.4), (1.0, 51.0, 0.3)]


def test_chart__one_share_is_no_curve(rows: list[Result]) -> None:
    svg = blend_chart(rows)
    assert svg.startswith("<svg") and ">0.5<" in svg and "zero-shot" in svg
    assert blend_chart([row for row in rows if row.model in ("blend-0", "clip")]) == ""


def test_report__shows_the_curve_where_there_are_blends(rows, tmp_path) -> None:
    for name, kept in (("with", rows), ("without", rows[-2:])):
        append_results(tmp_path / name / "results.jsonl", kept)
        write_report(tmp_path / name, tmp_path / f"{name}.html", title="t")
        page = (tmp_path / f"{name}.html").read_text()
        assert ("Between two models" in page) == (name == "with")
