from __future__ import annotations

import math

import pytest

from cliptex.training.log import Progress
from cliptex.training.optimizer import LossScale


def test_progress_counts_and_comes_back() -> None:
    progress = Progress(LossScale(enabled=False))
    progress.add(2.0, applied=True)
    progress.add(math.nan, applied=False)
    progress.add(1.0, applied=True)
    assert (progress.skipped, progress.in_row) == (1, 0)
    assert progress.loss == pytest.approx(0.98 * 2 + 0.02 * 1)
    progress.add(math.inf, applied=False)
    other = Progress(LossScale(enabled=False))
    other.load(progress.notes())
    assert other == progress and other.in_row == 1


def test_an_overflow_of_float16_is_hopeless_only_when_the_scale_is_spent() -> None:
    progress = Progress(LossScale(enabled=True, value=4.0))
    for _ in range(2):
        progress.add(1.0, applied=False)
        progress.scale.update(False)
    assert (progress.skipped, progress.in_row) == (2, 0)
    progress.add(1.0, applied=False)
    assert progress.in_row == 1
