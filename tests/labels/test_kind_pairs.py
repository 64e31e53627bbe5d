"""Two labels of one kind: how they differ, and how far one supports the other; by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cliptex.labels.kinds import ClassMap, ScalarField, Tolerance, UnitVector
from cliptex.labels.unit_vector import angular_agreement

CLASSES = ClassMap(("background", "ball", "chair"))


def vectors(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([rows], np.float32)  # (1, W, 3)


def test_difference__by_hand() -> None:
    a, b = np.array([[0, 1], [1, 255]], np.uint8), np.array([[0, 0], [1, 255]], np.uint8)
    assert CLASSES.difference(a, b).worst == pytest.approx(0.25)
    assert not CLASSES.within(CLASSES.difference(a, b), Tolerance())
    assert CLASSES.within(CLASSES.difference(a, b), Tolerance(equal=0.75))

    scalar = ScalarField("1/m")
    x, y = np.array([[1.0, 2], [math.nan, 5]], np.float32), np.array([[1.0, 2], [3, 6]], np.float32)
    found = scalar.difference(x, y)  # valid in both: 1, 2, 5 against 1, 2, 6; range 5
    assert (found.validity, found.worst) == pytest.approx((0.75, 0.2))
    assert found.mean == pytest.approx(0.2 / 3)
    assert not scalar.within(found, Tolerance(scalar=0.5)), "the valid pixels differ"
    assert scalar.within(scalar.difference(y, y), Tolerance(scalar=0))

    normals = np.zeros((1, 2, 3), np.float32)
    normals[..., 2] = 1
    turned = normals.copy()
    turned[0, 0] = (np.sin(np.radians(4)), 0, np.cos(np.radians(4)))
    found = UnitVector().difference(turned, normals)
    assert (found.mean, found.worst) == pytest.approx((2, 4), abs=1e-3)
    assert not UnitVector().within(found, Tolerance())
    assert "degrees" in UnitVector().describe(found)


def test_classes_agree_or_not() -> None:
    label = np.array([[0, 1, 2, 255, 1]], np.uint8)
    other = np.array([[0, 2, 2, 1, 255]], np.uint8)
    found = CLASSES.agreement(label, other)
    assert np.array_equal(found, [[1, 0, 1, np.nan, 0]], equal_nan=True)


def test_metric_values_differ_by_typical_deviations() -> None:
    # Median 2, mean absolute deviation (1 + 0 + 0 + 3) / 4 = 1.
    label = np.array([[1, 2, 2, 5]], np.float32)
    other = np.array([[1, 3, 2.5, np.nan]], np.float32)
    found = ScalarField("1/m").agreement(label, other)
    assert found[0].tolist() == pytest.approx([1, math.exp(-1), math.exp(-0.5), 0])


def test_a_common_factor_counts_in_metres_alone() -> None:
    label = np.array([[1, 2, 2, 5]], np.float32)
    doubled = 2 * label + 3
    assert (ScalarField("relative disparity").agreement(label, doubled) > 0.9999).all()
    metric = ScalarField("1/m").agreement(label, doubled)[0]
    assert metric.tolist() == pytest.approx([math.exp(-x) for x in (4, 5, 5, 8)])


def test_an_inverted_relative_disparity_is_no_agreement() -> None:
    label = np.array([[1, 2, 3, 4, 5]], np.float32)  # a negative scale would fit perfectly
    found = ScalarField("relative disparity").agreement(label, -label)
    # The best scale not below 0 is 0: all values at the mean 3; deviation 6 / 5.
    expected = [math.exp(-abs(x - 3) / 1.2) for x in (1, 2, 3, 4, 5)]
    assert found[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["m", "relative disparity"])
def test_constant_maps(unit: str) -> None:
    kind, flat = ScalarField(unit), np.full((2, 3), 4.0, np.float32)
    assert (kind.agreement(flat, flat) == 1).all()
    tilted = np.array([[4, 5, 6], [4, 5, 6]], np.float32)
    found = ScalarField("m").agreement(flat, tilted)
    assert found[0].tolist() == [1, 0, 0]


def test_scalars_valid_in_one_only() -> None:
    label, other = np.array([[np.nan, 1]], np.float32), np.array([[1, np.nan]], np.float32)
    found = ScalarField("relative disparity").agreement(label, other)
    assert np.array_equal(found, [[np.nan, 0]], equal_nan=True)


def test_angles_in_shares_of_a_right_angle() -> None:
    a = vectors((0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 0))
    half = math.sqrt(0.5)
    b = vectors((0, 0, 1), (half, 0, half), (0, 1, 0), (0, 0, -1), (0, 0, 0), (0, 0, 1))
    found = UnitVector().agreement(a, b)
    assert np.allclose(found, [[1, 0.5, 0, 0, 0, np.nan]], atol=1e-6, equal_nan=True)
    tiny = np.array([[math.sin(1e-4), 0, math.cos(1e-4)]], np.float32)
    assert angular_agreement(a[0, :1], tiny)[0] == pytest.approx(1 - 1e-4 / (math.pi / 2))
