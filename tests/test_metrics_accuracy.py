"""Accuracy by image: what the rows of classification by a probe and by prompts are made of."""

import numpy as np
import pytest

from cliptex.metrics import Accuracy


def test_accuracy__worked_by_hand():
    accuracy = Accuracy(6)
    scores = np.arange(6.0)[None].repeat(3, 0)  # 5 is the best, 0 the worst
    accuracy.update(scores, np.array([5, 5, 1]))
    accuracy.update(scores[:1], np.array([0]))
    # class 5 is right twice, 1 and 0 are wrong, and the others have no image
    expected = {"top1": 50, "top5": 75, "mean_per_class": 100 / 3}
    assert accuracy.values() == pytest.approx(expected)
    images = accuracy.per_image()
    assert images["top1"].tolist() == [100, 100, 0, 0]
    assert images["top5"].tolist() == [100, 100, 100, 0]
    assert images["mean_per_class"]["label"].tolist() == [5, 5, 1, 0]
    assert images["mean_per_class"]["hit"].tolist() == [True, True, False, False]


def test_accuracy__five_classes_have_no_top5_and_no_image_no_value():
    accuracy = Accuracy(5)
    assert list(accuracy.values()) == ["top1", "mean_per_class"]
    assert np.isnan(list(accuracy.values().values())).all()
