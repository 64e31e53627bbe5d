"""Golden numbers worked by hand, parity with numpy and scipy, and edge cases."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torchmetrics.functional.retrieval import retrieval_hit_rate

from cliptex import metrics


def test_miou__worked_by_hand():
    matrix = metrics.ConfusionMatrix(3)
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 0]])
    guess = np.array([[0, 0, 1, 1], [1, 0, 2, 0]])
    matrix.update(guess, truth)
    # class 0: 3 right, 4 true, 4 predicted -> 3/5; class 1: 2 right, 3 true, 3 predicted -> 2/4
    np.testing.assert_allclose(matrix.iou(), [60, 50, np.nan])
    assert matrix.miou() == pytest.approx(55)
    assert matrix.miou([1]) == pytest.approx(50)
    assert np.isnan(matrix.miou([2]))
    assert matrix.pixel_accuracy() == pytest.approx(100 * 5 / 7)


def test_miou__absent_class_predicted_somewhere_stays_out_of_the_mean():
    matrix = metrics.ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 2, 1]), np.array([0, 0, 0, 1]))
    assert np.isnan(matrix.iou()[2])
    assert matrix.miou() == pytest.approx((100 * 2 / 3 + 100) / 2)


def test_miou__is_global_not_a_mean_over_images():
    matrix = metrics.ConfusionMatrix(2)
    first = matrix.update(np.array([0, 0]), np.array([0, 0]))
    matrix.update(np.array([1, 1, 1, 1]), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(first, [[2, 0], [0, 0]])
    np.testing.assert_allclose(matrix.iou(), [40, 25])


def test_confusion__bad_input_is_named():
    matrix = metrics.ConfusionMatrix(2)
    with pytest.raises(ValueError, match="ground truth holds class ids 0..7"):
        matrix.update(np.array([0, 0]), np.array([0, 7]))
    with pytest.raises(ValueError, match="prediction holds"):
        matrix.update(np.array([0, -1]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        matrix.update(np.array([0, 0]), np.array([0]))


def test_confusion__ids_of_small_integer_types_do_not_overflow():
    matrix = metrics.ConfusionMatrix(150)
    matrix.update(np.array([149], np.uint8), np.array([149], np.uint8))
    assert matrix.counts[149, 149] == 1


def test_areas__sum_to_the_global_iou():
    rng = np.random.default_rng(0)
    matrix = metrics.ConfusionMatrix(4)
    pairs = rng.integers(0, 4, (5, 2, 30))
    areas = [metrics.counts_of(matrix.update(p, t)) for p, t in pairs]
    totals = np.array(areas).sum(0)
    np.testing.assert_allclose(metrics.iou_from_counts(*totals), matrix.iou())


def test_areas__of_many_matrices_are_those_of_each():
    counts = np.arange(18).reshape(2, 3, 3)
    together = np.stack(metrics.counts_of(counts), axis=1)
    np.testing.assert_equal(together, [np.stack(metrics.counts_of(one)) for one in counts])


def test_areas__per_image_and_class():
    matrix = metrics.ImageConfusion(3)
    matrix.update(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 255]))
    matrix.update(np.array([2]), np.array([2]))
    # intersection, prediction, truth; the ignored pixel counts nowhere
    assert matrix.areas().tolist() == [
        [[1, 2, 1], [1, 1, 2], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [1, 1, 1]],
    ]


def test_mean_of_present__leaves_out_what_is_not_there():
    values = np.array([[1.0, np.nan, 3], [np.nan] * 3])
    np.testing.assert_array_equal(metrics.mean_of_present(values), [2, np.nan])
    shares = metrics.percent_of(np.array([1, 0]), np.array([4, 0]))
    np.testing.assert_array_equal(shares, [25, np.nan])


def test_align__least_squares_parity_with_scipy():
    rng = np.random.default_rng(1)
    for _ in range(10):
        prediction, depth = rng.normal(size=(6, 7)), rng.uniform(0.5, 9, (6, 7))
        valid = rng.random((6, 7)) > 0.3
        design = np.stack([prediction[valid], np.ones(valid.sum())], axis=1)
        expected = lsq_linear(design, 1 / depth[valid]).x
        got = metrics.align_disparity(prediction, depth, valid)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -1e-6, 12345.678])
def test_align__a_constant_prediction_has_scale_zero(value):
    """Also where its mean is off by a rounding error, which is no variance."""
    depth = np.array([[1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 2.5]])
    scale, shift = metrics.align_disparity(np.full((1, 7), value), depth, depth > 0)
    assert scale == 0 and shift == pytest.approx((1 / depth).mean())


def test_absrel__any_affine_disparity_is_perfect():
    depth = np.random.default_rng(2).uniform(0.5, 9.9, (8, 9)).astype(np.float32)
    prediction = 40 - 3 / depth.astype(np.float64)  # a negative scale is aligned as well
    assert metrics.absrel(prediction, depth) == pytest.approx(0, abs=1e-6)


def test_absrel__constant_prediction_worked_by_hand():
    depth = np.array([[1.0, 2.0]])
    # disparities 1 and 0.5, mean 0.75 -> d' = 4/3: errors 1/3 and (2 - 4/3) / 2 = 1/3
    assert metrics.absrel(np.full((1, 2), 7.0), depth) == pytest.approx(1 / 3)


def test_absrel__mask_range_and_clamp():
    depth = np.array([[1.0, 2.0, 0.0, np.nan, 10.0, 50.0]])
    prediction = np.array([[1.0, 0.5, 99.0, 99.0, 99.0, 99.0]])
    assert metrics.absrel(prediction, depth) == pytest.approx(0, abs=1e-12)
    valid = np.array([[True, False, True, True, True, True]])
    assert metrics.absrel(prediction * 3, depth, valid=valid) == pytest.approx(0, abs=1e-12)
    assert np.isnan(metrics.absrel(prediction, np.zeros((1, 6))))
    # p = 1, 0, 0 against disparities 4, 0.25, 1/9: s*p+t = 0.1806 at p = 0; with an upper bound
    # of 5 m only 1/4 remains beside 4, and at 5 m nothing is clamped
    depth = np.array([[0.25, 4.0, 9.0]])
    assert metrics.absrel(np.array([[1.0, 0, 0]]), depth, bounds=(0, 5)) == pytest.approx(0)


def test_absrel__aligned_disparity_is_clamped_to_the_far_end():
    depth = np.array([[1.0, 1.0, 9.0, 9.0]])
    prediction = np.array([[1.0, 1.2, 0.3, -0.9]])
    scale, shift = metrics.align_disparity(prediction, depth, np.ones((1, 4), bool))
    disparity = scale * prediction + shift
    assert disparity.min() < 0.1 < disparity.max()  # the case is what it claims to be
    clamped = np.maximum(disparity, 0.1)
    expected = np.mean(np.abs(1 / clamped - depth) / depth)
    assert metrics.absrel(prediction, depth) == pytest.approx(expected)


def _tilted(degrees: float) -> list[float]:
    return [np.sin(np.radians(degrees)), 0.0, np.cos(np.radians(degrees))]


def test_angles__worked_by_hand():
    errors = metrics.AngularErrors()
    tilts = [0.0, 6.0, 10.0, 20.0, 40.0]
    truth = np.tile([0.0, 0.0, 1.0], (6, 1))
    truth[5] = 0  # invalid
    guess = np.array([_tilted(t) for t in tilts] + [[1.0, 0, 0]]) * 3  # length is of no account
    angles = errors.update(guess[None], truth[None])
    np.testing.assert_allclose(angles, tilts, atol=1e-6)
    assert errors.count == 5
    assert errors.mean() == pytest.approx(15.2)
    assert errors.median() == pytest.approx(10, abs=1e-3)
    assert errors.rmse() == pytest.approx(np.sqrt((36 + 100 + 400 + 1600) / 5))
    shares = [errors.below(t) for t in (5, 7.5, 11.25, 22.5, 30)]
    assert shares == [20, 40, 60, 80, 80]
    with pytest.raises(ValueError, match="thresholds"):
        errors.below(12)


def test_angles__threshold_is_strict_and_pooling_is_over_pixels():
    errors = metrics.AngularErrors(thresholds=(90.0,))
    errors.update(np.array([[1.0, 0, 0]]), np.array([[0.0, 0, 1]]))
    assert errors.below(90) == 0
    errors.update(np.array([[0, 0, 1.0]] * 3), np.array([[0.0, 0, 1]] * 3))
    assert errors.below(90) == 75


def test_angles__median_matches_numpy_and_extremes_do_not_fail():
    rng = np.random.default_rng(3)
    guess, truth = rng.normal(size=(2, 1000, 3))
    errors = metrics.AngularErrors()
    angles = errors.update(guess, truth)
    assert errors.median() == pytest.approx(np.median(angles), abs=1e-3)
    errors.update(np.array([[0, 0, -1.0], [0, 0, 0]]), np.array([[0, 0, 1.0], [0, 0, 1]]))
    assert errors.count == 1002
    assert np.isnan(metrics.AngularErrors().median())


def test_angles__valid_narrows():
    errors = metrics.AngularErrors()
    up = np.array([[0, 0, 1.0], [0, 1.0, 0]])
    errors.update(up, np.array([[0, 0, 1.0], [0, 0, 1.0]]), np.array([True, False]))
    assert errors.mean() == pytest.approx(0, abs=1e-6)


def test_topk__worked_by_hand():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [1, 1, 1]])
    labels = np.array([0, 1, 0])
    # the third label ties with two others: it is first in a third of all orders
    assert metrics.topk_hits(scores, labels, 1).tolist() == pytest.approx([1, 0, 1 / 3])
    assert metrics.topk_hits(scores, labels, 2).tolist() == pytest.approx([1, 1, 2 / 3])
    assert metrics.topk(scores, labels, 3) == 100


def expected_by_orders(scores, right, k: int) -> float:
    """The share of all orders of the answers, sorted by score, whose first k hold a right one."""
    count = len(scores)
    hits = []
    for order in itertools.permutations(range(count)):
        ranked = sorted(order, key=lambda i: -scores[i])  # stable: ties stay in random order
        hits.append(any(right[i] for i in ranked[:k]))
    return float(np.mean(hits))


@pytest.mark.parametrize("seed", range(12))
def test_ties__the_expectation_is_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, 6).astype(float)
    right = rng.random(6) < 0.35
    right[rng.integers(6)] = True
    labels = np.array([int(np.flatnonzero(right)[0])])
    alone = np.arange(6) == labels[0]
    for k in range(1, 7):
        found = metrics.topk_hits(scores[None], labels, k)
        assert found.tolist() == pytest.approx([expected_by_orders(scores, alone, k)])
        ranks = metrics.best_ranks(scores[None], np.array([1]), right.astype(int))
        assert metrics.recall_at(ranks, k) == pytest.approx(
            100 * expected_by_orders(scores, right, k)
        )


def test_ties__nine_of_ten_classes_alike_score_what_guessing_among_them_does():
    scores = np.tile([1.0] * 9 + [0.0], (10, 1))
    labels = np.arange(10)
    assert metrics.topk(scores, labels, 1) == pytest.approx(100 * (9 * (1 / 9) + 0) / 10)
    assert metrics.topk(scores, labels, 5) == pytest.approx(100 * (9 * (5 / 9) + 0) / 10)
    assert metrics.label_ranks(scores, labels).tied_queries == 9


def test_ties__without_any_hits_are_exactly_right_or_wrong():
    rng = np.random.default_rng(3)
    scores, labels = rng.permuted(np.tile(np.arange(8.0), (40, 1)), axis=1), rng.integers(0, 8, 40)
    for k in range(1, 9):
        order = np.argsort(-scores, axis=1)[:, :k]
        np.testing.assert_array_equal(
            metrics.topk_hits(scores, labels, k), (order == labels[:, None]).any(1)
        )


def test_retrieval__equal_gallery_items_tie_whatever_their_place():
    rng = np.random.default_rng(1)
    items = rng.normal(size=(5, 48)).astype(np.float32)
    texts = np.concatenate([items, items, items])  # owned by 15 pictures: 5 kinds, thrice each
    of_texts, of_images = metrics.retrieval_ranks(texts, texts, np.arange(15))
    for ranks in (of_texts, of_images):
        assert ranks.better.tolist() == [0] * 15 and ranks.tied.tolist() == [2] * 15
        assert metrics.recall_at(ranks, 1) == pytest.approx(100 / 3)
        assert metrics.recall_at(ranks, 3) == 100


def test_retrieval__many_captions_worked_by_hand():
    images = np.array([[1.0, 0], [0, 1.0]])
    owners = np.array([0, 0, 1])
    texts = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.95]])  # the second caption is misleading
    of_texts, of_images = metrics.retrieval_ranks(images, texts, owners)
    assert of_texts.better.tolist() == [0, 1, 0]
    assert of_images.better.tolist() == [0, 0]  # an image is found by its best caption
    assert metrics.recall_at(of_texts, 1) == pytest.approx(200 / 3)
    assert metrics.recall_at(of_images, 1) == 100


def test_retrieval__blocks_change_nothing_and_match_brute_force():
    rng = np.random.default_rng(4)
    images, texts = rng.normal(size=(13, 5)), rng.normal(size=(40, 5))
    owners = np.concatenate([np.arange(13), rng.integers(0, 13, 27)])
    whole = metrics.retrieval_ranks(images, texts, owners)
    for got, expected in zip(
        metrics.retrieval_ranks(images, texts, owners, block=7), whole, strict=True
    ):
        np.testing.assert_array_equal(np.stack(got), np.stack(expected))
    similarity = images @ texts.T
    for i, rank in enumerate(whole[1].better):
        order = np.argsort(-similarity[i])
        assert rank == next(k for k, j in enumerate(order) if owners[j] == i)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_retrieval__recall_is_the_hit_rate_of_torchmetrics(k):
    rng = np.random.default_rng(5)
    images, texts = rng.normal(size=(12, 6)), rng.normal(size=(36, 6))
    owners = np.arange(36) % 12
    of_texts, of_images = metrics.retrieval_ranks(images, texts, owners, block=5)
    similarity = torch.from_numpy(texts @ images.T)
    own = torch.from_numpy(owners[:, None] == np.arange(12))
    for ranks, scores, right in ((of_texts, similarity, own), (of_images, similarity.T, own.T)):
        pairs = zip(scores, right, strict=True)
        hits = [retrieval_hit_rate(row, mine, top_k=k).item() for row, mine in pairs]
        assert metrics.recall_at(ranks, k) == pytest.approx(100 * np.mean(hits))


def test_mean_per_class__worked_by_hand():
    labels = np.array([0, 0, 0, 0, 2])
    hits = np.array([True, True, True, False, False])
    assert metrics.mean_per_class(hits, labels, 4) == pytest.approx((75 + 0) / 2)
    assert np.isnan(metrics.mean_per_class(hits[:0], labels[:0], 4))


def test_retrieval__collapsed_embeddings_earn_what_guessing_does():
    ones = np.ones((4, 3)) / np.sqrt(3)
    of_texts, of_images = metrics.retrieval_ranks(ones, ones, np.arange(4))
    assert metrics.recall_at(of_texts, 1) == metrics.recall_at(of_images, 1) == pytest.approx(25)
    assert metrics.recall_at(of_texts, 3) == pytest.approx(75)


def test_retrieval__a_query_without_a_match_is_an_error():
    with pytest.raises(ValueError, match="no matching item"):
        metrics.best_ranks(np.ones((1, 1)), np.array([0]), np.array([1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_topk__a_label_without_a_finite_score_is_a_miss(bad):
    scores = np.array([[bad, 1, 2], [3.0, 1, 2]])
    assert metrics.topk_hits(scores, np.array([0, 0]), 3).tolist() == [False, True]


def test_topk__a_nan_beside_the_label_is_a_miss():
    scores = np.array([[3.0, np.nan, 2], [3, -np.inf, 2]])
    assert metrics.topk_hits(scores, np.array([0, 0])).tolist() == [False, True]


def test_ties__rows_that_rank_nothing_tie_with_nothing():
    scores = np.array([[np.nan, 1, 1], [2.0, 2, 1], [3, 1, 1]])
    assert metrics.label_ranks(scores, np.array([1, 0, 0])).tied_queries == 1


@pytest.mark.parametrize("where", ["images", "texts"])
def test_retrieval__embeddings_that_are_nan_are_never_found(where):
    found = {"images": np.eye(4), "texts": np.eye(4)}
    found[where] = np.full((4, 4), np.nan)
    ranks = metrics.retrieval_ranks(found["images"], found["texts"], np.arange(4))
    assert [metrics.recall_at(r, 10) for r in ranks] == [0, 0]  # also beyond the gallery's size


def test_retrieval__only_queries_with_a_nan_are_lost():
    texts = np.eye(3)
    texts[1] = np.nan
    of_texts, of_images = metrics.retrieval_ranks(np.eye(3), texts, np.arange(3))
    assert [metrics.recall_at(of_texts, 1), metrics.recall_at(of_images, 1)] == [
        pytest.approx(200 / 3),
        0,  # each picture was compared with the caption that is NaN
    ]
