import numpy as np
import pytest
from PIL import Image

from cliptex.datasets import ImageFolder
from cliptex.labels.kinds import ScalarField
from cliptex.metrics.scorers import Protocol
from cliptex.probes.baselines import run_dense_baseline, run_majority_baseline


def test_dense__a_world_without_variation_is_solved_by_position(world, kind, config):
    class Fixed(world):
        def ids(self, index: int) -> np.ndarray:
            return super().ids(0)

    rows = run_dense_baseline(Fixed(kind, 3, 0), Fixed(kind, 2, 0), config())
    assert rows[0].probe is None and rows[0].model == "mean prediction"
    expected = 0 if isinstance(kind, ScalarField) else 100
    assert rows[0].value == pytest.approx(expected, abs=1e-5)


def test_dense__knows_nothing_of_the_picture(world, kinds, config):
    sets = world(kinds["segmentation"], 60, 0), world(kinds["segmentation"], 30, 1)
    assert 5 < run_dense_baseline(*sets, config())[0].value < 25


def test_dense__scores_each_protocol_on_its_own_truth(world, kinds, config):
    class Fixed(world):
        def ids(self, index: int) -> np.ndarray:
            return super().ids(0)

    kind = kinds["segmentation"]
    twice = config(protocols=(Protocol(), Protocol(name="other")))
    other = {"other": world(kind, 4, 7)}
    rows = run_dense_baseline(Fixed(kind, 3, 0), Fixed(kind, 4, 0), twice, other)
    values = {row.protocol.get("name", ""): row.value for row in rows if row.metric == "miou"}
    assert values[""] == pytest.approx(100) and values["other"] < 50


def test_majority__is_the_share_of_the_commonest_training_class(colours):
    train, test = colours(30, 0), colours(50, 1)
    labels = [train[i][1] for i in range(30)]
    top = max(set(labels), key=labels.count)
    rows = {row.metric: row for row in run_majority_baseline(train, test)}
    share = np.mean([test[i][1] == top for i in range(50)])
    assert rows["top1"].value == pytest.approx(100 * share)
    assert rows["mean_per_class"].value == pytest.approx(25), "one of four classes is always right"


def test_majority__ties_of_a_balanced_set_do_not_lose(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(tmp_path / split / name / "x.png")
    sets = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
    assert run_majority_baseline(*sets)[0].value == 50
    (tmp_path / "test" / "a" / "x.png").write_bytes(b"damaged")
    assert run_majority_baseline(*sets)[0].value == 50, "labels are read without the pictures"
