"""Errors of depth: worked by hand, and against scipy's least squares."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from cliptex import metrics


def test_errors__worked_by_hand():
    # disparities 1 and 0.25 against a constant prediction: their mean 0.625, so d' = 1.6
    depth = np.array([[1.0, 4.0]])
    errors = metrics.depth_errors(np.full((1, 2), 3.0), depth)
    assert errors.absrel == pytest.approx((0.6 / 1 + 2.4 / 4) / 2)
    assert errors.rmse == pytest.approx(np.sqrt((0.6**2 + 2.4**2) / 2))
    assert errors.log10 == pytest.approx((np.log10(1.6) + np.log10(2.5)) / 2)
    # e = ln 1.6, -ln 2.5: mean (0.4700 - 0.9163) / 2, deviation half of their distance ln 4
    assert errors.silog == pytest.approx(100 * np.log(4) / 2)
    assert (errors.d1, errors.d2, errors.d3) == (0, 0, 50)  # ratios 1.6 and 2.5; 1.25^3 = 1.95


def test_errors__deltas_take_the_larger_ratio():
    # a constant prediction for 1 and 1.8 m is 9/7 m: 1.29 times too far, 1.4 times too near
    errors = metrics.depth_errors(np.ones((1, 2)), np.array([[1.0, 1.8]]))
    assert (errors.d1, errors.d2, errors.d3) == (0, 100, 100)


def test_errors__bounds_clamp_both_ends():
    depth = np.array([[0.5, 1.0, 4.0, 8.0]])
    prediction = np.array([[4.0, 0.9, 0.4, -0.9]])
    mask = np.ones((1, 4), bool)
    scale, shift = metrics.align_disparity(prediction, depth, mask)
    raw = 1 / (scale * prediction + shift)[0]
    bounds = (0.49, 10.0)
    assert raw.min() < 0.49 or raw.max() > 10 or (raw < 0).any()  # the case is what it claims
    found = metrics.aligned_depth(prediction, depth, mask, bounds)
    assert found.min() >= 0.49 - 1e-12 and found.max() <= 10 + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_errors__parity_with_scipy_and_their_definitions(seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 12, (9, 11))  # some beyond the range
    prediction = 2 / depth + rng.normal(0, 0.05, depth.shape)
    valid = rng.random(depth.shape) > 0.3
    errors = metrics.depth_errors(prediction, depth, valid=valid, bounds=(1e-3, 10))
    mask = valid & (depth < 10)
    design = np.stack([prediction[mask], np.ones(mask.sum())], axis=1)
    disparity = design @ lsq_linear(design, 1 / depth[mask]).x
    guess, true = 1 / np.clip(disparity, 0.1, 1000), depth[mask]
    e = np.log(guess) - np.log(true)
    ratio = np.maximum(guess / true, true / guess)
    expected = {
        "absrel": np.mean(np.abs(guess - true) / true),
        "rmse": np.sqrt(np.mean((guess - true) ** 2)),
        "log10": np.mean(np.abs(np.log10(guess) - np.log10(true))),
        "silog": 100 * np.sqrt(np.mean(e**2) - np.mean(e) ** 2),
        **{f"d{i}": 100 * np.mean(ratio < 1.25**i) for i in (1, 2, 3)},
    }
    found = {name: getattr(errors, name) for name in expected}
    assert found == pytest.approx(expected, rel=1e-7)
    assert metrics.absrel(prediction, depth, valid=valid) == errors.absrel


def test_errors__no_pixel_is_nan():
    errors = metrics.depth_errors(np.ones((2, 2)), np.zeros((2, 2)))
    assert np.isnan([errors.absrel, errors.rmse, errors.d3]).all()
