"""The compositor by hand: thresholds, order, ties, background and ignore."""

from __future__ import annotations

import numpy as np
import pytest

from cliptex.experts.composite import composite_instances, count_instances, predict_instances


def masks(*rows: list[float]) -> np.ndarray:
    """One-row masks (n, 1, W)."""
    return np.array(rows, np.float32)[:, None, :]


def paint(rows, classes, scores, **options) -> list[int]:
    stacked = masks(*rows)
    found = composite_instances(
        stacked, np.array(classes), np.array(scores), size=stacked.shape[1:], **options
    )
    assert found.dtype == np.uint8
    return found[0].tolist()


def test_the_highest_score_wins_whatever_the_order() -> None:
    rows = [[1, 1, 1, 0], [0, 0, 1, 1]]
    assert paint(rows, [1, 2], [0.6, 0.9]) == [1, 1, 2, 2]
    assert paint(rows[::-1], [2, 1], [0.9, 0.6]) == [1, 1, 2, 2]


def test_among_equal_scores_the_first_wins() -> None:
    assert paint([[1, 1, 0], [0, 1, 1]], [7, 3], [0.8, 0.8]) == [7, 7, 3]


def test_thresholds_are_reached_by_equality() -> None:
    rows = [[0.5, 0.49, 0.9], [1, 1, 1]]
    assert paint(rows, [1, 2], [0.5, 0.4999]) == [1, 0, 1]
    assert paint(rows, [1, 2], [0.5, 0.4], score_threshold=0.3) == [1, 2, 1]
    assert paint(rows, [1, 2], [0.5, 0.4], mask_threshold=0.8) == [0, 0, 1]


def test_unlabelled_pixels_may_be_ignored() -> None:
    assert paint([[1, 0]], [4], [0.9], unlabelled="ignore") == [4, 255]


def test_nothing_found_and_scores_of_nan() -> None:
    empty = composite_instances(
        np.zeros((0, 2, 3)), np.zeros(0, np.int64), np.zeros(0), size=(2, 3), ignore=65535
    )
    assert empty.shape == (2, 3) and empty.dtype == np.uint16 and not empty.any()
    assert paint([[1, 1], [0, 1]], [1, 2], [np.nan, 0.7]) == [0, 2]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not agree"):
        composite_instances(np.zeros((1, 2, 2)), np.array([1, 2]), np.array([1.0]), size=(2, 2))
    for number in (0, 255):
        with pytest.raises(ValueError, match="lie in"):
            paint([[1]], [number], [1.0])


def test_a_prediction_carries_scores_and_counts() -> None:
    found = predict_instances(
        masks([1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1]),
        np.array([2, 5, 5, 9]),
        np.array([0.6, 0.75, 0.5, 0.4], np.float32),
        size=(1, 4),
    )
    assert found.label.tolist() == [[2, 5, 5, 0]]
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence, [[0.6, 0.75, 0.75, 1.0]], rtol=1e-6)
    assert found.instances == {2: 1, 5: 2}  # the hidden third counts, the fourth is too low


def test_counting_leaves_out_low_scores_and_nan() -> None:
    classes, scores = np.array([3, 3, 1, 3]), np.array([0.5, np.nan, 0.49, 0.9])
    assert count_instances(classes, scores) == {3: 2}
    assert count_instances(classes, scores, 0.4) == {1: 1, 3: 2}
    assert count_instances(classes[:0], scores[:0]) == {}
