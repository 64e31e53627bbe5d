from __future__ import annotations

import pytest

from cliptex.report.tables import control_rows, expert_rows, model_order, task_tables

ORDER = ["clip", "clip-ft", "cliptex"]


def test_models_start_baseline_ours_then_controls_without_experts(rows, make_row):
    shuffled = [make_row("expert-depth", 1.0), *reversed(rows)]
    names = model_order(shuffled, ORDER)
    assert names[:3] == ORDER
    assert sorted(names[3:]) == ["cliptex-perfect", "cliptex-placebo"]
    assert model_order(shuffled, ["init"])[0] != "init"


def test_tables_by_hand(rows):
    tables = task_tables(rows, model_order(rows, ORDER), ours="cliptex", baseline="clip-ft")
    assert [table.task for table in tables] == ["segmentation", "depth", "zeroshot"]
    things, depth, zeroshot = tables
    assert [row[0].text for row in things.cells if row[0]] == [
        "20.0 ± 0.0",
        "22.0 ± 2.0",
        "27.0 ± 3.0",
        "32.0 ± 2.0",
        "22.3 ± 1.5",
    ]
    # 5 ± 4.303 / sqrt(3) = 5 ± 2.48
    assert things.differences == ("+5.0 [+2.5, +7.5]",)
    assert depth.cells[2][0] is not None and depth.cells[2][0].text == "0.320 ± 0.020"
    assert depth.columns[0].arrow == "↓" and depth.columns[0].sizes == (100,)
    assert zeroshot.models == tuple(ORDER), "a model without values has no line"


def test_controls_are_never_best_and_lower_wins_for_depth(rows):
    tables = task_tables(rows, model_order(rows, ORDER), ours="cliptex", baseline="clip-ft")
    for table in tables[:2]:
        best = [m for m, (cell,) in zip(table.models, table.cells, strict=True) if cell.best]
        assert best == ["cliptex"]


def test_ties_share_the_mark_and_leaks_are_marked(make_row):
    rows = [make_row("clip-ft", 0.3, leak=True), make_row("cliptex", 0.3), make_row("clip", 0.4)]
    (table,) = task_tables(rows, ORDER, ours="cliptex", baseline="clip-ft")
    cells = [row[0] for row in table.cells]
    assert [cell.text for cell in cells if cell] == ["0.400", "0.300†", "0.300"]
    assert [cell.best for cell in cells if cell] == [False, True, True]
    assert table.differences == ("+0.000",)


def test_probes_are_not_mixed_and_holes_stay_holes(make_row):
    rows = [make_row("clip", 0.4, probe="linear"), make_row("cliptex", 0.3, probe="decoder")]
    (table,) = task_tables(rows, ["clip", "cliptex"], ours="cliptex", baseline="clip")
    assert [[cell and cell.text for cell in row] for row in table.cells] == [
        ["0.400", None],
        [None, "0.300"],
    ]
    assert table.differences == ("–", "–")


def test_control_shares_in_text(rows):
    found = control_rows(rows, ours="cliptex", baseline="clip-ft")
    assert [(c.measure.task, c.of_perfect_text, c.placebo_text) for c in found] == [
        ("segmentation", "50 %", "7 %"),
        ("depth", "50 %", "−25 %"),
    ]
    assert control_rows(rows, ours="clip", baseline="clip-ft") == []


def test_expert_rows_once_per_value(make_row):
    row = make_row("expert-depth", 0.125, n=50)
    assert expert_rows([row, row.model_copy(update={"seed": 1}), make_row("clip", 1.0)]) == [
        ("expert-depth", "d", "AbsRel", "0.125", 50)
    ]


@pytest.mark.parametrize("metric", ["unheard-of", "miou"])
def test_any_metric_can_be_shown(make_row, metric):
    rows = [make_row("clip", 12.345, metric=metric, task="new-task", better="higher")]
    (table,) = task_tables(rows, ["clip"], ours="cliptex", baseline="clip-ft")
    assert table.task == "new-task" and len(table.cells) == 1
