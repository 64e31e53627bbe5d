from __future__ import annotations

import pytest

from cliptex.report.comparability import controls_apart, unlike, with_splits

MODEL = {"encoder_sha256": "a"}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"epochs": 12}, {"epochs": 12}, ""),
        ({"epochs": 12, "batch_size": 4}, {"epochs": 300, "batch_size": 8}, "both"),
        ({"train_split": "a"}, {"train_split": "b"}, "train split a / b"),
        ({"refit": True}, {"refit": False}, "refit true / false"),
        ({"lr": 0.1, "lr_grid": [0.1, 1]}, {"lr": 1, "lr_grid": [0.1, 1]}, ""),
        ({"lr": 0.1}, {"lr": 0.2}, "lr grid [0.1] / [0.2]"),
        ({"lr": 0.1, "lr_grid": [0.1, 1]}, {"lr": 0.1}, "lr grid [0.1, 1] / [0.1]"),
        ({"schedule": {"lr": 1, "kind": "multi-step"}}, {"schedule": {"lr": 2}}, "schedule"),
        ({"epochs": 12}, {}, ""),
        ({**MODEL, "precision": "fp32"}, MODEL, ""),
        ({**MODEL, "precision": "bf16"}, MODEL, "precision bf16 / fp32"),
        ({**MODEL, "head_precision": "tf32"}, MODEL, "head precision tf32 / fp32"),
        ({**MODEL, "precision": "bf16"}, {"prediction": "mean"}, ""),
        ({"map": [1, 2], "encoder_sha256": "a"}, {"map": [1, 4], "encoder_sha256": "b"}, ""),
        ({"encoder_resolution": 512, "cells": "x"}, {"encoder_resolution": 504, "cells": "y"}, ""),
    ],
)
def test_unlike__names_what_differs_but_for_what_the_model_brings(
    make_row, first, second, expected
):
    said = {"both": "batch size 4 / 8, epochs 12 / 300"}.get(expected, expected)
    rows = [make_row("a", 1.0, protocol=first), make_row("b", 1.0, protocol=second)]
    assert unlike(rows) == said


def test_controls_apart__a_control_that_differs_has_a_name_of_its_own(make_row):
    first = make_row("pixels", 1.0, protocol={"encoder_stride": 8})
    again = first.model_copy(update={"time": "later"})
    other = make_row("pixels", 2.0, protocol={"encoder_stride": 32})
    seed = make_row("pixels", 3.0, seed=1)
    rows = [first, again, other, seed, make_row("clip", 1.0), make_row("clip", 2.0)]
    names = [row.model for row in controls_apart(rows)]
    assert names == ["pixels", "pixels", "pixels (2)", "pixels", "clip", "clip"]


def splits(rows) -> list[object]:
    return [row.protocol.get("test_split") for row in with_splits(rows)]


def test_with_splits__rows_that_name_none_have_that_of_their_like(make_row):
    old, val = make_row("a", 1.0), make_row("b", 1.0, protocol={"test_split": "val"})
    assert splits([old, val]) == ["val", "val"]
    assert splits([old, old]) == [None, None]


def test_with_splits__of_several_or_of_another_test_none_can_be_taken(make_row):
    old, val = make_row("a", 1.0), make_row("b", 1.0, protocol={"test_split": "val"})
    sub = make_row("b", 1.0, protocol={"test_split": "sub"})
    assert splits([old, val, sub]) == [None, "val", "sub"]
    for other in ({"n": 1}, {"dataset": "x"}, {"metric": "x"}, {"protocol": {"recipe": "x"}}):
        assert splits([make_row("a", 1.0, **other), val]) == [None, "val"]
