"""Encode and decode: within the stated bound, invalid exact, bytes stable."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.labels.scalar_field import scalar_statistics
from cliptex.labels.unit_vector import OCTAHEDRAL_ERROR_DEGREES, RGB_ERROR_DEGREES

quick = settings(deadline=None, max_examples=20)
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


def there_and_back(kind, array: np.ndarray, codec: str | None = None) -> np.ndarray:
    encoded = kind.encode(array, codec)
    assert kind.encode(array, codec) == encoded, "the same label gives the same bytes"
    return kind.decode(encoded.png, encoded.meta, codec)


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


@pytest.mark.parametrize(("codec", "steps"), [("png-scalar-10", 1022), ("png-scalar-16", 65534)])
@quick
@given(
    size=sizes,
    seed=st.integers(0, 999),
    offset=st.sampled_from([0.0, 1.0, -50.0, 1e4]),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
    invalid=st.sampled_from([0, 0.5]),
)
def test_scalar__within_the_bound(codec, steps, size, seed, offset, spread, invalid) -> None:
    rng = np.random.default_rng(seed)
    array = (offset + spread * rng.random(size)).astype(np.float32)
    array[rng.random(size) < invalid] = np.nan
    array[0, 0] = offset
    back = there_and_back(ScalarField("1/m"), array, codec)
    assert back.dtype == np.float32
    assert np.array_equal(np.isnan(back), np.isnan(array))
    valid = np.isfinite(array)
    low, high = float(array[valid].min()), float(array[valid].max())
    bound = (high - low) / (2 * steps) * (1 + 1e-9) + np.spacing(
        np.float32(max(abs(low), abs(high)))
    )
    assert np.abs(back - array)[valid].max() <= bound
    assert back[valid].min() == np.float32(low) and back[valid].max() == np.float32(high)


def test_scalar__rendered_map() -> None:
    """A floor in perspective: disparity from 0 at the horizon to 2, its top half a hole."""
    rows = np.clip(np.arange(64) - 31, 0, None) / 16
    array = np.repeat(rows[:, None], 48, axis=1).astype(np.float32)
    array[:32] = np.nan
    back = there_and_back(ScalarField("1/m"), array)
    assert np.nanmax(np.abs(back - array)) <= (array[63, 0] - array[32, 0]) / 2044 + 1e-7
    assert np.isnan(back[:32]).all()


def test_scalar__nothing_valid_is_refused() -> None:
    with pytest.raises(ValueError, match="without a valid pixel"):
        ScalarField("m").encode(np.full((2, 2), np.nan, np.float32))


def test_scalar__statistics_by_hand() -> None:
    array = np.array([[1, 2, np.nan], [3, 10, np.inf]], np.float32)
    # median of 1, 2, 3, 10 is 2.5; deviations 1.5, 0.5, 0.5, 7.5
    assert scalar_statistics(array) == (2.5, 2.5)
    assert scalar_statistics(np.full((3, 3), 7, np.float32)) == (7.0, 0.0)
    meta = ScalarField("m").encode(np.array([[1, 2, 3, 10]], np.float32)).meta
    assert meta == {"low": 1.0, "high": 10.0, "shift": 2.5, "scale": 2.5}


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors, exact also where it is small."""
    half = np.linalg.norm(a.astype(np.float64) - b, axis=-1) / 2
    return np.degrees(2 * np.arcsin(np.clip(half, 0, 1)))


NORMAL_CODECS = [
    ("png-normal-oct", OCTAHEDRAL_ERROR_DEGREES),
    ("png-normal-rgb8", RGB_ERROR_DEGREES),
]


@pytest.mark.parametrize(("codec", "bound"), NORMAL_CODECS)
@quick
@given(seed=st.integers(0, 10_000))
def test_normals__within_the_bound(codec, bound, seed) -> None:
    kind = UnitVector()
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(40, 50, 3)) * rng.choice([1, 0.01], size=(40, 50, 3))
    array[rng.random((40, 50)) < 0.2] = 0
    array = kind.check(array)
    back = there_and_back(kind, array, codec)
    mirrored = there_and_back(kind, kind.flip(array), codec)
    assert np.allclose(mirrored, kind.flip(back), atol=1e-6), "flips agree"
    valid = kind.valid(array)
    assert np.array_equal(kind.valid(back), valid)
    assert (back[~valid] == 0).all()
    assert angles(array, back)[valid].max() <= bound
    assert np.allclose(np.linalg.norm(back[valid], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("codec", "bound"), NORMAL_CODECS)
def test_normals__the_stated_bound_is_not_much_too_large(codec, bound) -> None:
    array = UnitVector().check(np.random.default_rng(0).normal(size=(300, 400, 3)))
    worst = angles(array, there_and_back(UnitVector(), array, codec)).max()
    assert 0.9 * bound < worst <= bound
    assert f"{bound:.2f} degrees" in UnitVector().codec(codec).bound


@pytest.mark.parametrize("codec", ["png-normal-oct", "png-normal-rgb8"])
def test_normals__worst_directions_never_meet_the_invalid_code(codec) -> None:
    kind = UnitVector()
    signs = np.array(np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])).reshape(3, -1).T
    array = kind.check(signs[signs.any(axis=1)][None].astype(np.float64))
    back = there_and_back(kind, array, codec)
    assert kind.valid(back).all()
    along_axes = (array != 0).sum(axis=2) == 1
    assert np.array_equal(back[along_axes], array[along_axes]), "walls and floors are exact"


def test_decode__wrong_bytes_are_named() -> None:
    classes = ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="mode"):
        UnitVector().decode(classes.png, None, "png-normal-rgb8")
    with pytest.raises(ValueError, match="readable PNG"):
        ClassMap(("a",)).decode(classes.png[:20], None)
    scalar = ScalarField("m").encode(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="low and high"):
        ScalarField("m").decode(scalar.png, None)


def test_fit__keeps_the_aspect_and_never_enlarges() -> None:
    assert fitted_size((480, 640), 512) == (384, 512)
    assert fitted_size((1, 5000), 512) == (1, 512)
    assert fitted_size((30, 20), 512) == (30, 20)
    assert ClassMap(("a",)).fit(np.zeros((100, 50), np.uint8), 20).shape == (20, 10)


def test_codecs__are_known_by_name_and_kind() -> None:
    for name in ("png-normal-oct", "png-class-16", "jpeg"):
        with pytest.raises(ValueError, match=f"{name}.*known"):
            ClassMap(("a",)).encode(np.zeros((2, 2), np.uint8), name)
    kinds = (ClassMap(("a",)), ScalarField("m"), UnitVector())
    assert len({codec.bound for kind in kinds for codec in kind.codecs.values()}) == 5


def test_octahedral__codes_by_hand() -> None:
    """u, v = 91 + round(90 p), p = (x, y) / (|x| + |y| + |z|), the far half folded outwards."""
    vectors = [(0, 0, 1), (1, 0, 0), (0, -1, 0), (0.6, 0, 0.8), (-0.6, 0, -0.8), (0, 0, -1)]
    codes = [(91, 91), (181, 91), (91, 1), (130, 91), (1, 142), (181, 181), (0, 0)]
    array = UnitVector().check(np.array([[*vectors, (0, 0, 0)]], np.float64))
    pixels = np.asarray(Image.open(io.BytesIO(UnitVector().encode(array).png)))
    assert pixels.tolist() == [[u for u, _ in codes], [v for _, v in codes]]


def test_scalar__codes_by_hand() -> None:
    """1 + round(1022 share), its high byte above its low byte: 1, 1023, 512 and 0."""
    array = np.array([[-1.0, 1.0, 0.0, np.nan]], np.float32)
    encoded = ScalarField("m").encode(array)
    pixels = np.asarray(Image.open(io.BytesIO(encoded.png)))
    assert pixels.tolist() == [[0, 3, 2, 0], [1, 255, 0, 0]]
    back = ScalarField("m").decode(encoded.png, encoded.meta)
    assert np.array_equal(back, array, equal_nan=True)


def test_decode__damaged_planes_are_named() -> None:
    def png(array: list[list[int]]) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.array(array, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    with pytest.raises(ValueError, match="even height, found 3"):
        UnitVector().decode(png([[1], [1], [1]]), None)
    with pytest.raises(ValueError, match="above 1023"):
        ScalarField("m").decode(png([[4], [0]]), {"low": 0, "high": 1})
    stray = UnitVector().decode(png([[200, 0], [91, 91]]), None)
    assert not stray.any(), "codes outside the square are invalid"


def test_old_codecs__bytes_made_without_this_package_are_read() -> None:
    def png(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    scalar = png(np.array([[0, 1, 32768, 65535]], np.uint16))
    ends = {"low": 1.0, "high": 3.0}
    values = ScalarField("m").decode(scalar, ends, "png-scalar-16")
    assert np.allclose(values, [[np.nan, 1, 2, 3]], atol=1e-4, equal_nan=True)
    normals = png(np.array([[[0, 0, 0], [128, 128, 255], [128, 1, 128]]], np.uint8))
    back = UnitVector().decode(normals, None, "png-normal-rgb8")
    assert np.array_equal(back, [[[0, 0, 0], [0, 0, 1], [0, -1, 0]]])
    with pytest.raises(ValueError, match="mode"):
        ScalarField("m").decode(scalar, ends)
