"""Encode and decode: within the stated bound, invalid exact, bytes stable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptex.labels.codecs import (
    NORMAL_ERROR_DEGREES,
    decode,
    encode,
    fit,
    fitted_size,
    scalar_statistics,
)
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector

quick = settings(deadline=None, max_examples=20)
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


def there_and_back(kind, array: np.ndarray) -> np.ndarray:
    encoded = encode(kind, array)
    assert encode(kind, array) == encoded, "the same label gives the same bytes"
    return decode(kind, encoded.png, encoded.meta)


@quick
@given(size=sizes, count=st.sampled_from([2, 255, 256, 60000]), seed=st.integers(0, 99))
def test_class_map__exact(size, count, seed) -> None:
    kind = ClassMap(tuple(map(str, range(count))), 255 if count <= 255 else 65535)
    rng = np.random.default_rng(seed)
    array = rng.integers(0, count, size).astype(kind.dtype)
    array[rng.random(size) < 0.2] = kind.ignore
    back = there_and_back(kind, array)
    assert back.dtype == kind.dtype
    assert np.array_equal(back, array)


@quick
@given(
    size=sizes,
    seed=st.integers(0, 999),
    offset=st.sampled_from([0.0, 1.0, -50.0, 1e4]),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    invalid=st.sampled_from([0, 0.5]),
)
def test_scalar__within_the_bound(size, seed, offset, spread, invalid) -> None:
    rng = np.random.default_rng(seed)
    array = (offset + spread * rng.random(size)).astype(np.float32)
    array[rng.random(size) < invalid] = np.nan
    array[0, 0] = offset
    back = there_and_back(ScalarField("1/m"), array)
    assert back.dtype == np.float32
    assert np.array_equal(np.isnan(back), np.isnan(array))
    valid = np.isfinite(array)
    low, high = float(array[valid].min()), float(array[valid].max())
    bound = (high - low) / 131068 * (1 + 1e-9) + np.spacing(np.float32(max(abs(low), abs(high))))
    assert np.abs(back - array)[valid].max() <= bound
    assert back[valid].min() == np.float32(low) and back[valid].max() == np.float32(high)


def test_scalar__rendered_map() -> None:
    """A floor in perspective: disparity from 0 at the horizon to 2, its top half a hole."""
    rows = np.clip(np.arange(64) - 31, 0, None) / 16
    array = np.repeat(rows[:, None], 48, axis=1).astype(np.float32)
    array[:32] = np.nan
    back = there_and_back(ScalarField("1/m"), array)
    assert np.nanmax(np.abs(back - array)) <= (array[63, 0] - array[32, 0]) / 131068 + 1e-7
    assert np.isnan(back[:32]).all()


def test_scalar__nothing_valid_is_refused() -> None:
    with pytest.raises(ValueError, match="without a valid pixel"):
        encode(ScalarField("m"), np.full((2, 2), np.nan, np.float32))


def test_scalar__statistics_by_hand() -> None:
    array = np.array([[1, 2, np.nan], [3, 10, np.inf]], np.float32)
    # median of 1, 2, 3, 10 is 2.5; deviations 1.5, 0.5, 0.5, 7.5
    assert scalar_statistics(array) == (2.5, 2.5)
    assert scalar_statistics(np.full((3, 3), 7, np.float32)) == (7.0, 0.0)
    meta = encode(ScalarField("m"), np.array([[1, 2, 3, 10]], np.float32)).meta
    assert meta == {"low": 1.0, "high": 10.0, "shift": 2.5, "scale": 2.5}


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors, exact also where it is small."""
    half = np.linalg.norm(a.astype(np.float64) - b, axis=-1) / 2
    return np.degrees(2 * np.arcsin(np.clip(half, 0, 1)))


@quick
@given(seed=st.integers(0, 10_000))
def test_normals__within_the_bound(seed) -> None:
    kind = UnitVector()
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(40, 50, 3)) * rng.choice([1, 0.01], size=(40, 50, 3))
    array[rng.random((40, 50)) < 0.2] = 0
    array = kind.check(array)
    back = there_and_back(kind, array)
    valid = kind.valid(array)
    assert np.array_equal(kind.valid(back), valid)
    assert (back[~valid] == 0).all()
    assert angles(array, back)[valid].max() <= NORMAL_ERROR_DEGREES
    assert np.allclose(np.linalg.norm(back[valid], axis=1), 1, atol=1e-6)


def test_normals__worst_directions_never_meet_the_invalid_code() -> None:
    kind = UnitVector()
    signs = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T
    array = kind.check(signs[signs.any(axis=1)][None].astype(np.float64))
    back = there_and_back(kind, array)
    assert kind.valid(back).all()
    along_axes = (array != 0).sum(axis=2) == 1
    assert np.array_equal(back[along_axes], array[along_axes]), "walls and floors are exact"


def test_decode__wrong_bytes_are_named() -> None:
    classes = encode(ClassMap(("a",)), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="mode"):
        decode(UnitVector(), classes.png, None)
    with pytest.raises(ValueError, match="readable PNG"):
        decode(ClassMap(("a",)), classes.png[:20], None)
    scalar = encode(ScalarField("m"), np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="low and high"):
        decode(ScalarField("m"), scalar.png, None)


def test_fit__keeps_the_aspect_and_never_enlarges() -> None:
    assert fitted_size((480, 640), 512) == (384, 512)
    assert fitted_size((1, 5000), 512) == (1, 512)
    assert fitted_size((30, 20), 512) == (30, 20)
    assert fit(ClassMap(("a",)), np.zeros((100, 50), np.uint8), 20).shape == (20, 10)
