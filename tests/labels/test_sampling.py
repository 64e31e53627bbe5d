"""Half-pixel sampling against hand-worked numbers and against PIL."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptex.labels.sampling import WHOLE, Box, sample_bilinear, sample_nearest

quick = settings(deadline=None, max_examples=20)
sides = st.integers(1, 13)


def coordinates(height: int, width: int) -> np.ndarray:
    """(H, W) where every pixel's value is its own place."""
    return np.arange(height * width, dtype=np.uint16).reshape(height, width)


def no_ties(inputs: int, outputs: int) -> np.ndarray:
    """Output pixels whose centre (2 i + 1) n / (2 o) is not an integer."""
    return np.flatnonzero((2 * np.arange(outputs) + 1) * inputs % (2 * outputs))


def test_nearest__hand_worked() -> None:
    row = np.array([[10, 20, 30]], np.uint8)
    # centres of two cells over three pixels: 0.75 and 2.25
    assert sample_nearest(row, WHOLE, (1, 2)).tolist() == [[10, 30]]
    # centres of six cells: 0.25, 0.75, 1.25, ...
    assert sample_nearest(row, WHOLE, (1, 6)).tolist() == [[10, 10, 20, 20, 30, 30]]
    # of one cell: 1.5
    assert sample_nearest(row, WHOLE, (2, 1)).tolist() == [[20], [20]]


def test_nearest__ties_go_up_for_every_width() -> None:
    """Halving puts every centre on a border; rounding noise must not choose the side."""
    for width in range(1, 700, 7):
        row = np.arange(2 * width)[None]
        assert (sample_nearest(row, WHOLE, (1, width))[0] == 2 * np.arange(width) + 1).all()


def test_bilinear__hand_worked() -> None:
    row = np.array([[0, 8]], np.float32)
    # positions of four cells between the two pixel centres: -0.25 (clamped), 0.25, 0.75, 1.25
    assert sample_bilinear(row, WHOLE, (1, 4)).tolist() == [[0, 2, 6, 8]]
    right_half = Box(0.5, 0, 1, 1)
    assert sample_bilinear(row, right_half, (1, 2)).tolist() == [[6, 8]]


@quick
@given(height=sides, width=sides, out=st.tuples(sides, sides), data=st.data())
def test_crops_of_whole_pixels_are_exact(height, width, out, data) -> None:
    array = coordinates(height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    box = Box.of_pixels(slice(top, bottom), slice(left, right), (height, width))
    crop = array[top:bottom, left:right]
    assert (sample_nearest(array, box, crop.shape) == crop).all()
    assert (sample_bilinear(array, box, crop.shape) == crop).all()
    # nearest of a box at any size is nearest of the cropped array
    assert (sample_nearest(array, box, out) == sample_nearest(crop, WHOLE, out)).all()


@quick
@given(height=sides, width=sides, out=st.tuples(sides, sides))
def test_nearest_and_enlarging_agree_with_pil(height, width, out) -> None:
    """The image is cropped and resized by PIL: labels must follow to the pixel."""
    array = coordinates(height, width).astype(np.int32)
    ours = sample_nearest(array, WHOLE, out)
    pil = np.asarray(Image.fromarray(array).resize(out[::-1], Image.Resampling.NEAREST))
    # where a centre lies on a border between pixels, either neighbour is right
    rows, columns = (no_ties(n, o) for n, o in ((height, out[0]), (width, out[1])))
    assert (ours == pil)[np.ix_(rows, columns)].all()
    larger = (out[0] + height, out[1] + width)
    smooth = sample_bilinear(array, WHOLE, larger)
    pil = Image.fromarray(array.astype(np.float32)).resize(larger[::-1], Image.Resampling.BILINEAR)
    assert np.allclose(smooth, np.asarray(pil), atol=1e-3)


@quick
@given(left=st.floats(0, 0.9), top=st.floats(0, 0.9), out=st.tuples(sides, sides), depth=sides)
def test_flip_mirrors_the_output(left, top, out, depth) -> None:
    array = np.random.default_rng(0).random((9, 11, depth), np.float32)
    box = Box(left, top, 1, 0.95)
    for sample in (sample_nearest, sample_bilinear):
        plain, flipped = sample(array, box, out), sample(array, box, out, flip=True)
        assert plain.shape == (*out, depth)
        assert np.array_equal(flipped, plain[:, ::-1])


def test_blocks_do_not_show() -> None:
    """More rows than one block: the same as row by row."""
    array = np.random.default_rng(0).random((50, 3), np.float32)
    tall = sample_bilinear(array, WHOLE, (200, 3))
    for row in (0, 63, 64, 127, 128, 199):
        box = Box(0, row / 200, 1, (row + 1) / 200)
        assert np.allclose(sample_bilinear(array, box, (1, 3)), tall[row : row + 1], atol=1e-6)


@pytest.mark.parametrize("sides", [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01)])
def test_box__refuses_empty_and_outside(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="box"):
        Box(*sides)
