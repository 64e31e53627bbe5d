from __future__ import annotations

import pytest

from cliptex.report.compare import compare_all
from cliptex.report.footnotes import legend
from cliptex.report.names import model_name
from cliptex.report.tables import control_rows, expert_rows, model_order, task_tables

ORDER = ["clip", "clip-ft", "cliptex"]


def tables_of(rows, models, baseline):
    return task_tables(rows, models, compare_all(rows, "cliptex", baseline), ours="cliptex")


def test_models_start_baseline_ours_then_controls_without_experts(rows, make_row):
    shuffled = [make_row("expert-depth", 1.0), *reversed(rows)]
    names = model_order(shuffled, ORDER)
    assert names[:3] == ORDER
    assert sorted(names[3:]) == ["cliptex-perfect", "cliptex-placebo"]
    assert model_order(shuffled, ["init"])[0] != "init"


def test_tables_by_hand(rows):
    tables = tables_of(rows, model_order(rows, ORDER), "clip-ft")
    titles = ["Semantic segmentation", "Depth", "Zero-shot classification"]
    assert [table.title for table in tables] == titles
    things, depth, zeroshot = tables
    assert [line.cells[0].text for line in things.lines if line.cells[0]] == [
        "20.0 ± 0.0",
        "22.0 ± 2.0",
        "27.0 ± 3.0",
        "32.0 ± 2.0",
        "22.3 ± 1.5",
    ]
    # 5 ± 4.303 / sqrt(3) = 5 ± 2.48
    assert things.differences == ("+5.0 [+2.5, +7.5]",)
    ours = depth.lines[2].cells[0]
    assert ours is not None and ours.text == "0.320 ± 0.020"
    assert depth.columns[0].arrow == "↓" and depth.columns[0].measure.n == 300
    assert [line.model for line in zeroshot.lines] == ORDER, "a model without values has no line"


def test_controls_are_never_best_and_lower_wins_for_depth(rows):
    tables = tables_of(rows, model_order(rows, ORDER), "clip-ft")
    for table in tables[:2]:
        best = [line.model for line in table.lines if line.cells[0] and line.cells[0].best]
        assert best == ["cliptex"]


def test_a_model_alone_is_not_best(make_row):
    rows = [make_row("clip", 0.4), make_row("cliptex-placebo", 0.5), make_row("pixels", 0.5)]
    (table,) = tables_of(rows, model_order(rows, ORDER), "clip-ft")
    assert not any(cell and cell.best for line in table.lines for cell in line.cells)


def test_ties_share_the_mark_and_leaks_are_marked(make_row):
    rows = [make_row("clip-ft", 0.3, leak=True), make_row("cliptex", 0.3), make_row("clip", 0.4)]
    (table,) = tables_of(rows, ORDER, "clip-ft")
    cells = [line.cells[0] for line in table.lines]
    assert [cell.text for cell in cells if cell] == ["0.400", "0.300†", "0.300"]
    assert [cell.best for cell in cells if cell] == [False, True, True]
    assert table.differences == ("+0.000",)


def test_probes_are_not_mixed_and_holes_stay_holes(make_row):
    rows = [make_row("clip", 0.4, probe="linear"), make_row("cliptex", 0.3, probe="decoder")]
    (table,) = tables_of(rows, ["clip", "cliptex"], "clip")
    assert [[cell and cell.text for cell in line.cells] for line in table.lines] == [
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
    (table,) = tables_of(rows, ["clip"], "clip-ft")
    assert table.title == "new-task" and len(table.lines) == 1


def test_recipes_have_columns_of_their_own(make_row):
    rows = [
        make_row("clip", value, probe="linear", protocol={"recipe": recipe, "resolution": 512})
        for recipe, value in (("fast", 0.4), ("paper", 0.3))
    ]
    (table,) = tables_of(rows, ["clip"], "clip-ft")
    assert [cell and cell.text for cell in table.lines[0].cells] == ["0.400", "0.300"]
    assert [column.measure.test for column in table.columns] == [
        "linear probe, fast recipe, 512 px",
        "linear probe, paper recipe, 512 px",
    ]


def test_tests_have_columns_of_their_own_told_apart_by_what_differs(make_row):
    rows = [
        make_row("clip", 0.4, n=4, protocol={"test_split": "val"}),
        make_row("cliptex", 0.1, n=4, protocol={"test_split": "sub"}),
        make_row("cliptex", 0.2, n=8, protocol={"test_split": "sub"}),
    ]
    (table,) = tables_of(rows, ["clip", "cliptex"], "clip")
    assert [[cell and cell.text for cell in line.cells] for line in table.lines] == [
        ["0.400", None, None],
        [None, "0.100", "0.200"],
    ]
    assert [column.details[1:] for column in table.columns] == [
        ("n = 4", "val split"),
        ("n = 4", "sub split"),
        ("n = 8", "sub split"),
    ]
    assert table.differences == ("–", "–", "–") and table.shared == ("d",)


def test_what_is_not_like_for_like_is_marked_where_it_is_compared(make_row):
    rows = [make_row(m, 0.4, protocol={"epochs": e}) for m, e in (("clip", 12), ("cliptex", 300))]
    (table,) = tables_of(rows, ["clip", "cliptex"], "clip")
    assert table.columns[0].details[-1] == "≠ epochs 12 / 300"
    assert table.differences == ("+0.000 ≠",)


def test_what_has_learnt_nothing_stands_apart_and_is_never_best(make_row):
    rows = [make_row("pixels", 0.1), make_row("clip", 0.4), make_row("mean prediction", 0.2)]
    rows += [make_row("cliptex", 0.5)]
    order = model_order(rows, ORDER)
    assert order == ["clip", "cliptex", "pixels", "mean prediction"]
    (table,) = tables_of(rows, order, "clip-ft")
    assert [line.model for line in table.lines] == ["clip", "cliptex"]
    assert [line.model for line in table.controls] == ["pixels", "mean prediction"]
    assert not any(line.cells[0] and line.cells[0].best for line in table.lines)  # pixels do better
    worse = [r if r.model == "clip" else r.model_copy(update={"value": 0.5}) for r in rows]
    (table,) = tables_of(worse, order, "clip-ft")
    assert table.lines[0].cells[0] and table.lines[0].cells[0].best
    assert not any(cell and cell.best for line in table.controls for cell in line.cells)


def test_further_controls_stand_beside_the_first_of_their_kind(make_row):
    names = ["pixels", "pixels (2)", "random-init", "random-init (2)", "clip", "mean prediction"]
    rows = [make_row(name, 0.1, checkpoint="random") for name in names]
    order = model_order(rows, ORDER)
    assert order == ["clip", "random-init", "random-init (2)", *names[:2], "mean prediction"]
    (table,) = tables_of(rows, order, "clip-ft")
    assert [line.model for line in table.controls] == order[1:]
    assert not any(cell.marks for line in table.controls for cell in line.cells if cell)
    assert model_name("random-init (2)") == "random weights (2)"
    assert model_name("mine (2)") == "mine (2)"


def test_marks_say_what_to_read_with_care(make_row):
    rows = [
        make_row("clip", 0.4, protocol={"lr_at_grid_edge": True}),
        make_row("clip-ft", 0.4, checkpoint="random", protocol={"lr_at_grid_edge": False}),
        make_row("cliptex", 0.4, protocol={"diverged_at_step": 7}, leak=True),
        make_row("random-init", 0.4, checkpoint="random"),
    ]
    (table,) = tables_of(rows, model_order(rows, ORDER), "clip-ft")
    marks = [line.cells[0].marks for line in (*table.lines, *table.controls) if line.cells[0]]
    assert marks == ["‡", "§", "†¶", ""]
    assert [text[0] for text in legend(rows)] == ["†", "‡", "§", "¶"]
    assert legend([make_row("clip", 0.4, protocol={"diverged_at_step": None})]) == []


def test_wide_tasks_are_cut_by_data_set_and_probe(make_row):
    rows = [
        make_row(
            "clip", 10.0, task="detection", metric=f"{metric}_{form}", probe=probe, better="higher"
        )
        for probe, forms in (("ssd", ("box",)), ("mask_rcnn", ("box", "mask")))
        for form in forms
        for metric in ("ap", "ap50", "ap75", "aps", "apl")
    ]
    tables = tables_of(rows, ["clip"], "clip-ft")
    assert [table.title for table in tables] == [
        "Detection and instance segmentation · d · SSD probe",
        "Detection and instance segmentation · d · Mask R-CNN probe",
        "Detection and instance segmentation · d · Mask R-CNN probe",
    ]
    labels = [[c.measure.name.label for c in table.columns][:2] for table in tables]
    assert labels == [["box AP", "box AP50"], ["box AP", "box AP50"], ["mask AP", "mask AP50"]]
