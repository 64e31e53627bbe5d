"""Rules of the kinds: what is invalid stays so, vectors stay unit, flips mirror."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptex.labels.kinds import (
    Box,
    ClassMap,
    Kind,
    ScalarField,
    UnitVector,
    kind_from_json,
)

KINDS: list[Kind] = [
    ClassMap(("background", "cat", "dog")),
    ClassMap(tuple(f"class {i}" for i in range(300)), ignore=65535),
    ScalarField("1/m"),
    UnitVector(),
]
quick = settings(deadline=None, max_examples=20)
sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))
boxes = st.tuples(*[st.floats(0, 1)] * 4).filter(
    lambda b: abs(b[0] - b[1]) > 1e-3 and abs(b[2] - b[3]) > 1e-3
)


def random_label(kind: Kind, size: tuple[int, int], seed: int, invalid: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hole = rng.random(size) < invalid
    if isinstance(kind, ClassMap):
        array = rng.integers(0, len(kind.classes), size).astype(kind.dtype)
        array[hole] = kind.ignore
        return array
    if isinstance(kind, ScalarField):
        array = (rng.random(size) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
        array[hole] = np.nan
        return array
    array = rng.normal(size=(*size, 3))
    array[hole] = 0
    return kind.check(array)


def as_box(numbers: tuple[float, ...]) -> Box:
    left, right = sorted(numbers[:2])
    top, bottom = sorted(numbers[2:])
    return Box(left, top, right, bottom)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@quick
@given(size=sizes, seed=st.integers(0, 99), invalid=st.sampled_from([0, 0.3, 1]))
def test_flip_twice_is_identity(kind, size, seed, invalid) -> None:
    array = random_label(kind, size, seed, invalid)
    assert np.array_equal(kind.flip(kind.flip(array)), array, equal_nan=array.dtype.kind == "f")
    assert np.array_equal(kind.valid(kind.flip(array)), kind.valid(array)[:, ::-1])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@quick
@given(size=sizes, out=sizes, box=boxes, seed=st.integers(0, 99))
def test_sample_with_flip_is_flip_of_sample(kind, size, out, box, seed) -> None:
    array = random_label(kind, size, seed, 0.3)
    plain = kind.sample(array, as_box(box), out, False)
    flipped = kind.sample(array, as_box(box), out, True)
    assert plain.dtype == array.dtype and plain.shape == (*out, *array.shape[2:])
    floats = array.dtype.kind == "f"
    assert np.array_equal(kind.flip(plain), flipped, equal_nan=floats)
    whole = kind.resize(array, size)
    assert np.allclose(whole, array, atol=1e-6, equal_nan=floats)


@quick
@given(size=sizes, out=sizes, box=boxes, seed=st.integers(0, 99))
def test_scalar__invalid_never_leaks(size, out, box, seed) -> None:
    """Whatever stands in invalid pixels, results are within the valid values' range or NaN."""
    kind = ScalarField("m")
    array = random_label(kind, size, seed, 0.5)
    result = kind.sample(array, as_box(box), out)
    inside = result[np.isfinite(result)]
    if np.isfinite(array).any():
        low, high = np.nanmin(array), np.nanmax(array)
        margin = 1e-5 * abs(high)
        assert ((inside >= low - margin) & (inside <= high + margin)).all()
    else:
        assert inside.size == 0
    assert not np.isinf(result).any()


def test_scalar__weights_are_renormalised_over_valid_neighbours() -> None:
    kind = ScalarField("m")
    row = np.array([[4, np.nan, 8, 10]], np.float32)
    # eight cells: positions -0.25 (clamped), 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25
    # beside the hole the one valid neighbour counts alone, however small its weight
    assert kind.resize(row, (1, 8)).tolist() == [[4, 4, 4, 8, 8, 8.5, 9.5, 10]]
    holes = np.array([[4, np.nan, np.nan, 10]], np.float32)
    middle = kind.sample(holes, Box(0.25, 0, 0.75, 1), (1, 2))
    assert np.isnan(middle).all()


def test_scalar__tiny_weights_keep_their_precision() -> None:
    kind = ScalarField("m")
    row = np.array([[3.3333333, np.nan]], np.float32)
    for distance in (1e-3, 1e-5, 1e-6):
        box = Box(0.5, 0, 0.5 + (0.25 - distance) * 2, 1)  # centre just left of the hole's centre
        assert kind.sample(row, box, (1, 1))[0, 0] == pytest.approx(3.3333333, rel=1e-6)


@quick
@given(size=sizes, out=sizes, box=boxes, seed=st.integers(0, 99), flip=st.booleans())
def test_normals_stay_unit_or_zero(size, out, box, seed, flip) -> None:
    kind = UnitVector()
    array = random_label(kind, size, seed, 0.4)
    result = kind.sample(array, as_box(box), out, flip)
    length = np.linalg.norm(result, axis=2)
    valid = kind.valid(result)
    assert np.allclose(length[valid], 1, atol=1e-5)
    assert (result[~valid] == 0).all()


def test_normals__flip_negates_x_and_moves_pixels() -> None:
    kind = UnitVector()
    array = np.array([[[1, 0, 0], [0, 0.6, 0.8]]], np.float32)
    expected = np.array([[[0, 0.6, 0.8], [-1, 0, 0]]], np.float32)
    assert np.array_equal(kind.flip(array), expected)
    assert np.array_equal(kind.sample(array, Box(0, 0, 1, 1), (1, 2), True), expected)


def test_normals__opposite_neighbours_are_invalid_and_holes_do_not_count() -> None:
    kind = UnitVector()
    opposite = np.array([[[1, 0, 0], [-1, 0, 0]]], np.float32)
    between = Box(0.25, 0, 0.75, 1)
    assert (kind.sample(opposite, between, (1, 1)) == 0).all()
    hole = np.array([[[0, 0, 1], [0, 0, 0]]], np.float32)
    assert kind.sample(hole, between, (1, 1)).tolist() == [[[0, 0, 1]]]
    nan = np.array([[[0, 0, 1], [np.nan, 0, 0]]], np.float32)
    assert kind.sample(nan, between, (1, 1)).tolist() == [[[0, 0, 1]]]


def test_check__canonical_forms() -> None:
    scalar = ScalarField("m").check(np.array([[1, np.inf], [-np.inf, 1e300]]))
    assert scalar.dtype == np.float32
    assert np.isnan(scalar).tolist() == [[False, True], [True, True]]
    normals = UnitVector().check(np.array([[[0, 0, 2], [np.nan, 1, 1], [0, 0, 1e-9]]]))
    assert normals.tolist() == [[[0, 0, 1], [0, 0, 0], [0, 0, 0]]]
    classes = ClassMap(("a", "b")).check(np.array([[0, 1, 255]], np.int64))
    assert classes.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("length", [1, 3, 1e-5, 1e-7, 1e25])
def test_check__normals_of_any_length_and_type(dtype: type, length: float) -> None:
    """Against float64, a hole and a vector that is not finite among them."""
    rng = np.random.default_rng(0)
    given = length * rng.normal(size=(20, 30, 3))
    if dtype in (np.float16, np.int32):
        given = given.clip(-3e4, 3e4)
    array = given.astype(dtype)
    array[3, 4] = 0
    if dtype is not np.int32:
        array[5, 6, 1] = np.inf
    kept = array.copy()
    found = UnitVector().check(array)
    assert found.dtype == np.float32 and np.array_equal(array, kept), "the argument stays"
    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        size = np.sqrt((wide * wide).sum(axis=2, keepdims=True))
        usable = np.isfinite(size) & (size > 1e-6)
        expected = np.where(usable, wide / size, 0)
    np.testing.assert_allclose(found, expected, atol=3e-7)
    assert np.array_equal(UnitVector().valid(found), usable[:, :, 0])


def test_check__unit_vectors_are_taken_as_they_are() -> None:
    normals = UnitVector().check(np.random.default_rng(0).normal(size=(20, 30, 3)))
    assert UnitVector().check(normals) is normals
    longer = normals * np.float32(1 + 2e-6)
    assert np.abs(np.linalg.norm(UnitVector().check(longer), axis=2) - 1).max() < 2e-7


@pytest.mark.parametrize(
    ("kind", "array"),
    [
        (ClassMap(("a", "b")), np.array([[2]])),
        (ClassMap(("a", "b")), np.array([[-1]])),
        (ClassMap(("a", "b")), np.array([[0.0]])),
        (ClassMap(("a",)), np.zeros((0, 4), np.uint8)),
        (ScalarField("m"), np.zeros((2, 2, 1))),
        (UnitVector(), np.zeros((3, 2, 2))),
    ],
)
def test_check__refuses_other_forms(kind: Kind, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"class|scalar|normals"):
        kind.check(array)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_json__round_trip(kind: Kind) -> None:
    assert kind_from_json(json.loads(json.dumps(kind.to_json()))) == kind


def test_json__unknown() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        kind_from_json({"kind": "boxes"})
    with pytest.raises(ValueError, match="does not understand"):
        kind_from_json({"kind": "scalar-field", "colour": 1})


def test_kinds__refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="ignore"):
        ClassMap(tuple(map(str, range(256))))
    with pytest.raises(ValueError, match="frame"):
        UnitVector("right-up-back-toward")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_draw__is_a_picture_and_shows_holes(kind: Kind) -> None:
    array = random_label(kind, (6, 7), 0, 0.4)
    picture = kind.draw(array)
    assert picture.shape == (6, 7, 3) and picture.dtype == np.uint8
    hole = picture[~kind.valid(array)]
    assert (hole == hole[0]).all()


@pytest.mark.parametrize("unit", [0.01, 1.0, 250.0])
def test_draw__scalars_from_their_smallest_to_their_largest(unit: float) -> None:
    ramp = unit * np.linspace(3, 4, 101, dtype=np.float32)[None]
    colours = ScalarField("m").draw(ramp)[0].astype(int)
    assert colours[0].tolist() == [68, 1, 84] and colours[-1].tolist() == [253, 231, 37]  # viridis
    green = colours[:, 1]
    assert (np.diff(green) >= 0).all() and abs(green[50] - 145) < 10


def test_draw__nothing_valid_is_black() -> None:
    picture = ScalarField("m").draw(np.full((2, 3), np.nan, np.float32))
    assert picture.shape == (2, 3, 3) and not picture.any()


def test_check__one_pixel_is_a_label() -> None:
    assert ScalarField("m").check(np.array([[2.0]])).tolist() == [[2.0]]


def test_draw__voc_palette() -> None:
    kind = ClassMap(tuple(map(str, range(21))))
    colours = kind.draw(np.array([[0, 1, 2, 15, 20]], np.uint8))[0].tolist()
    assert colours == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128]]
