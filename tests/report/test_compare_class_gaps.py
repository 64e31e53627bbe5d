from __future__ import annotations

import pytest

from cliptex.report.compare import class_gaps


@pytest.fixture
def segmented(make_row):
    """A segmentation row with IoU per class."""

    def make(model, iou, **other):
        protocol = {"class_iou": iou, **other.pop("protocol", {})}
        return make_row(model, 1.0, task="segmentation", protocol=protocol, **other)

    return make


def test_class_gaps__probes_are_not_mixed(segmented):
    rows = [
        segmented(model, {"chair": value}, probe=probe)
        for model, probe, value in (
            ("a", "linear", 10.0),
            ("a", "deeplabv3", 30.0),
            ("b", "linear", 8.0),
            ("b", "deeplabv3", 35.0),
        )
    ]
    found = class_gaps(rows, "a", "b")
    assert [(test.test, test.gaps[0].gap) for test in found] == [
        ("linear probe", 2.0),
        ("DeepLabv3 probe", -5.0),
    ]


def test_class_gaps__are_means_over_common_seeds_largest_first(segmented):
    rows = [
        segmented("a", {"x": 10.0, "y": 50.0, "z": 1.0}, seed=0),
        segmented("a", {"x": 14.0, "y": 50.0, "z": None}, seed=1),
        segmented("a", {"x": 99.0, "y": 99.0, "z": 1.0}, seed=2),
        segmented("b", {"x": 10.0, "y": 40.0, "z": 1.0}, seed=0),
        segmented("b", {"x": 10.0, "y": 40.0, "z": 1.0}, seed=1),
    ]
    (test,) = class_gaps(rows, "a", "b")
    assert test.seeds == (0, 1)
    assert [(gap.name, gap.gap) for gap in test.gaps] == [("y", 10.0), ("x", 2.0)]
    assert test.gaps[0].label == "y"


def test_class_gaps__say_how_much_of_the_truth_a_class_is(segmented):
    protocol = {"class_support": {"x": [3400, 1]}}
    rows = [segmented(model, {"x": 1.0}, protocol=protocol) for model in ("a", "b")]
    (test,) = class_gaps(rows, "a", "b")
    assert test.gaps[0].label == "x · 1 image, 3.4 k px"


def test_class_gaps__of_one_test_only_and_with_what_is_not_alike(segmented):
    rows = [segmented("a", {"x": 2.0}, n=8, protocol={"epochs": 2}), segmented("b", {"x": 1.0})]
    assert class_gaps(rows, "a", "b") == []
    rows += [segmented("b", {"x": 1.0}, n=8, protocol={"epochs": 1})]
    (test,) = class_gaps(rows, "a", "b")
    assert (test.n, test.unlike) == (8, "epochs 1 / 2")


def test_class_gaps__nothing_in_common(segmented):
    assert class_gaps([segmented("a", {"x": 1.0}), segmented("b", {"y": 1.0})], "a", "b") == []
    assert class_gaps([segmented("a", {"x": 1.0})], "a", "b") == []
