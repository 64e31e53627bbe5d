"""Scorers on numbers worked by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from cliptex.labels.kinds import ClassMap
from cliptex.metrics import ConfusionMatrix
from cliptex.metrics.scorers import (
    EIGEN,
    LASINGER,
    WHOLE,
    AccuracyScorer,
    DepthScorer,
    NormalsScorer,
    Protocol,
    Score,
    SegmentationScorer,
)
from cliptex.probes.outcome import Naming, best_index, rows_of
from cliptex.probes.outcome import Tested as OfTest

KIND = ClassMap(classes=("background", "cat", "dog"))


def values(scorer) -> dict[str, float]:
    return {name: score.value for name, score in scorer.metrics().items()}


def logits(ids, second) -> torch.Tensor:
    """Raw outputs (3, 1, n) whose best class is `ids` and whose runner-up is `second`."""
    out = torch.zeros(3, 1, len(ids))
    for column, (first, other) in enumerate(zip(ids, second, strict=True)):
        out[other, 0, column] = 1
        out[first, 0, column] = 2
    return out


def test_segmentation__with_and_without_background_by_hand():
    scorer = SegmentationScorer(KIND, WHOLE)
    # truth       bg bg cat cat dog  -     said         bg cat cat bg bg bg; runner-ups below
    truth = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)
    scorer.add(logits([0, 1, 1, 0, 0, 0], [1, 2, 2, 2, 2, 1]), truth)
    found = values(scorer)
    # bg: 1 of {0, 0, said 3, 4} = 1/4; cat: 1 of {2, 3, said 1} = 1/3; dog: 0 of 1
    assert found["miou"] == pytest.approx(100 * (1 / 4 + 1 / 3 + 0) / 3)
    assert found["miou_things"] == pytest.approx(100 * (1 / 3 + 0) / 2)
    # without background: cat cat dog are said to be cat dog dog
    assert found["miou_foreground"] == pytest.approx(100 * (1 / 2 + 1 / 2) / 2)
    areas = scorer.per_image()["miou_foreground"]  # intersection, prediction, truth
    np.testing.assert_array_equal(areas, [[[1, 1, 2], [1, 2, 1]]])


def test_segmentation__classes_without_background_have_no_such_row():
    scorer = SegmentationScorer(ClassMap(classes=("wall", "cat", "dog")), WHOLE)
    scorer.add(logits([0, 1], [1, 2]), np.array([[0, 1]], np.uint8))
    assert values(scorer) == {"miou": 100.0}


def test_segmentation__chosen_things_are_named():
    kind = ClassMap(classes=("background", "cat", "dog", "cow"))
    chosen, all_things = (SegmentationScorer(kind, WHOLE, t) for t in (("dog", "cow"), None))
    for scorer in (chosen, all_things):
        scorer.add(torch.eye(4)[:, None], np.array([[0, 1, 2, 3]]))
    some, usual = chosen.protocol(), all_things.protocol()
    assert (some["things"], some["thing_classes"]) == (2, ["dog", "cow"])
    assert usual["things"] == 3 and "thing_classes" not in usual


def test_segmentation__support_counts_pixels_and_images_of_the_truth():
    scorer = SegmentationScorer(KIND, WHOLE)
    for truth in ([0, 0, 1], [1, 255, 255], [1, 1, 0]):
        scorer.add(logits([2, 2, 2], [0, 0, 0]), np.array([truth], np.uint8))
    support = scorer.protocol()["class_support"]
    assert support == {"background": [3, 2], "cat": [4, 3], "dog": [0, 0]}


def test_segmentation__65535_ignores_too():
    kind = ClassMap(classes=KIND.classes, ignore=65535)
    scorer = SegmentationScorer(kind, WHOLE)
    scorer.add(logits([1, 0], [0, 1]), np.array([[1, 65535]], np.uint16))
    assert values(scorer)["miou_foreground"] == 100


def test_confusion__parity_with_scikit_learn():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 6, 500), rng.integers(0, 5, 500)
    truth[truth == 5] = 255
    ours = ConfusionMatrix(5)
    ours.update(guess, truth)
    kept = truth != 255
    theirs = confusion_matrix(truth[kept], guess[kept], labels=range(5))
    np.testing.assert_array_equal(ours.counts, theirs)


def test_depth__one_set_of_predictions_under_two_protocols():
    scorers = [DepthScorer(LASINGER), DepthScorer(EIGEN)]
    rng = np.random.default_rng(1)
    depth = rng.uniform(1, 9, (480, 640)).astype(np.float32)
    prediction = torch.from_numpy(3 / depth - 1)[None]
    prediction[0, :45] = 0.5  # nonsense above Eigen's crop
    for scorer in scorers:
        scorer.add(prediction, depth)
    lasinger, eigen = (values(scorer) for scorer in scorers)
    assert list(eigen) == [
        "absrel",
        *(f"depth_{name}" for name in ("rmse", "log10", "silog", "d1", "d2", "d3")),
    ]
    assert eigen["absrel"] < 1e-5 < 0.05 < lasinger["absrel"]
    assert eigen["depth_d1"] == 100 > lasinger["depth_d1"]
    told = [scorer.protocol() for scorer in scorers]
    assert [(one["name"], one["crop"], one["depths"]) for one in told] == [
        ("lasinger", None, "rawDepths"),
        ("eigen", (45, 471, 41, 601), "depths"),
    ]


def test_depth__images_count_alike_and_empty_ones_not():
    scorer = DepthScorer(Protocol())
    depth = np.array([[1.0, 2.0]])
    for truth in (depth, np.full((1, 2), np.nan), 1 / (2 - depth / 2)):
        scorer.add(torch.tensor([[[7.0, 7.0]]]), truth)  # constant: the mean disparity
    per_image = scorer.per_image()["absrel"]
    assert per_image[0] == pytest.approx(1 / 3) and np.isnan(per_image[1])
    assert values(scorer)["absrel"] == pytest.approx(np.nanmean(per_image))
    assert scorer.protocol()["images_without_valid_pixels"] == 1


def test_normals__pooled_shares_and_their_counts_per_image():
    scorer = NormalsScorer(WHOLE)
    tilts = [[1, 6, 8, 20], [25, 40]]
    for degrees in tilts:
        angles = np.radians(degrees)
        guess = np.stack([np.sin(angles), 0 * angles, np.cos(angles), angles], 0)  # (4, n)
        truth = np.zeros((1, len(degrees), 3))
        truth[..., 2] = 1
        scorer.add(torch.from_numpy(guess)[:, None], truth)
    found = values(scorer)
    assert found["a5"] == pytest.approx(100 / 6) and found["a7"] == pytest.approx(200 / 6)
    assert found["a11"] == pytest.approx(50) and found["a22"] == pytest.approx(400 / 6)
    assert found["a30"] == pytest.approx(500 / 6) and found["mean"] == pytest.approx(100 / 6)
    images = scorer.per_image()
    np.testing.assert_array_equal(images["a30"], [[4, 4], [1, 2]])  # not 100 % and 50 %
    assert images["mean"].sum(0)[0] / images["mean"].sum(0)[1] == pytest.approx(found["mean"])
    squares, count = images["rmse"].sum(0)
    assert np.sqrt(squares / count) == pytest.approx(found["rmse"])
    assert "median" not in images


def test_accuracy__top5_and_mean_per_class():
    scorer = AccuracyScorer(7)
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(60, 7)), rng.integers(0, 7, 60)
    for row, label in zip(scores, labels, strict=True):
        scorer.add(torch.from_numpy(row)[:, None, None], np.array([[label]]))
    found = values(scorer)
    best = scores.argmax(1)
    assert found["top1"] == pytest.approx(100 * (best == labels).mean())
    five = [label in np.argsort(-row)[:5] for row, label in zip(scores, labels, strict=True)]
    assert found["top5"] == pytest.approx(100 * np.mean(five))
    assert found["mean_per_class"] == pytest.approx(100 * balanced_accuracy_score(labels, best))
    assert list(found) == ["top1", "top5", "mean_per_class"]
    images = scorer.per_image()["mean_per_class"]
    assert images["label"].tolist() == labels.tolist()
    assert images["hit"].tolist() == (best == labels).tolist()
    few = AccuracyScorer(3)
    few.add(torch.tensor([1.0, 2.0, 3.0]), np.array(2))
    assert values(few) == {"top1": 100.0, "mean_per_class": 100.0}


CASES = {  # scorer, channels, a ground truth of 2 x 2 pixels
    "segmentation": (lambda: SegmentationScorer(KIND, WHOLE), 3, np.array([[0, 1], [2, 1]])),
    "depth": (lambda: DepthScorer(LASINGER), 1, np.array([[1.0, 2], [3, 4]])),
    "normals": (lambda: NormalsScorer(WHOLE), 4, np.ones((2, 2, 3)) / 3**0.5),
    "classification": (lambda: AccuracyScorer(12), 12, np.array([[7]])),
}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("task", CASES)
def test_not_finite__one_prediction_loses_the_choice_and_has_no_rows(task, bad):
    make, channels, truth = CASES[task]
    tested, naming = OfTest(task=task, dataset="d", probe="linear", n=3, seed=4), Naming(model="m")
    sound, sick = make(), make()
    fine = torch.rand(channels, *truth.shape[:2], generator=torch.Generator().manual_seed(0))
    broken = fine.clone()
    broken[0, 0, 0] = bad
    for scorer, third in ((sound, fine), (sick, broken)):
        for prediction in (fine, fine, third):
            scorer.add(prediction, truth)
    assert all(np.isfinite(row.value) for row in rows_of([sound], tested, naming, {})[0])
    assert all(np.isnan(value) for value in values(sick).values())
    firsts = [next(iter(scorer.metrics().values())) for scorer in (sick, sound)]
    assert best_index(firsts) == 1
    told = rf"^m: {task} \(linear, seed 4\) on d: .* on 1 of 3 images: .*`learning_rates`"
    with pytest.raises(ValueError, match=told):
        rows_of([sound, sick], tested, naming, {})


@pytest.mark.parametrize("task", CASES)
def test_not_finite__every_prediction(task):
    make, channels, truth = CASES[task]
    scorer = make()
    scorer.add(torch.full((channels, *truth.shape[:2]), float("nan")), truth)
    assert scorer.not_finite == 1 and all(np.isnan(value) for value in values(scorer).values())


def test_best__direction_ties_and_nan():
    nan = float("nan")
    assert best_index([Score(1, "higher"), Score(3, "higher"), Score(3, "higher")]) == 1
    assert best_index([Score(nan, "lower"), Score(0.4, "lower"), Score(0.3, "lower")]) == 2
