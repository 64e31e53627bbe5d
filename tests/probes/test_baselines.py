import numpy as np
import pytest

from cliptex.labels.kinds import ScalarField
from cliptex.probes import run_dense_baseline, run_majority_baseline


def test_dense__a_world_without_variation_is_solved_by_position(world, kind, config):
    class Fixed(world):
        def ids(self, index: int) -> np.ndarray:
            return super().ids(0)

    rows = run_dense_baseline(Fixed(kind, 3, 0), Fixed(kind, 2, 0), config())
    assert rows[0].probe is None and rows[0].model == "baseline-mean"
    expected = 0 if isinstance(kind, ScalarField) else 100
    assert rows[0].value == pytest.approx(expected, abs=1e-5)


def test_dense__knows_nothing_of_the_picture(world, kinds, config):
    sets = world(kinds["segmentation"], 60, 0), world(kinds["segmentation"], 30, 1)
    assert 5 < run_dense_baseline(*sets, config())[0].value < 25


def test_majority__is_the_share_of_the_commonest_training_class(colours):
    train, test = colours(30, 0), colours(50, 1)
    labels = [train[i][1] for i in range(30)]
    top = max(set(labels), key=labels.count)
    row = run_majority_baseline(train, test)
    assert row.value == pytest.approx(100 * np.mean([test[i][1] == top for i in range(50)]))
