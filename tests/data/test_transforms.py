from __future__ import annotations

import numpy as np
import pytest

from cliptex.data.transforms import Augmentation, View, draw_view, sample_generator, view_image
from cliptex.labels.kinds import Box, ClassMap, ScalarField


def views(count: int, height: int, width: int, **changes) -> list[View]:
    augmentation = Augmentation(**changes)
    return [draw_view(height, width, augmentation, sample_generator(0, p)) for p in range(count)]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 150), (37, 20)])
def test_crops_have_the_stated_areas_and_ratios(height: int, width: int) -> None:
    for view in views(300, height, width, scale=(0.2, 0.8)):
        box = view.box
        w, h = box.right - box.left, box.bottom - box.top
        assert 0.2 - 1e-9 <= w * h <= 0.8 + 1e-9
        assert 3 / 4 - 1e-9 <= w * width / (h * height) <= 4 / 3 + 1e-9


def test_large_crops_of_a_long_picture_fall_back_to_its_centre() -> None:
    # 0.9 of a 4:1 picture does not fit within a ratio of 4/3: the centre at 4/3 is taken.
    (view,) = views(1, 30, 120)
    width = 30 * 4 / 3 / 120
    assert view.box.left == pytest.approx((1 - width) / 2)
    assert view.box.right == pytest.approx((1 + width) / 2)
    assert (view.box.top, view.box.bottom) == (0, 1)


def test_views_depend_on_seed_and_position_alone() -> None:
    augmentation = Augmentation(scale=(0.3, 0.8), flip=0.5)

    def draw(seed: int, position: int) -> View:
        return draw_view(40, 60, augmentation, sample_generator(seed, position))

    assert draw(1, 7) == draw(1, 7)
    assert len({draw(1, p) for p in range(20)}) == 20
    assert draw(1, 7) != draw(2, 7)


def test_flips_come_as_often_as_asked() -> None:
    assert not any(view.flip for view in views(50, 32, 32))
    assert all(view.flip for view in views(50, 32, 32, flip=1.0))
    assert 60 < sum(view.flip for view in views(200, 32, 32, flip=0.5)) < 140


def test_whole_view_at_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(view_image(image, View(Box(), False), (20, 30)), image)
    assert np.array_equal(view_image(image, View(Box(), True), (20, 30)), image[:, ::-1])


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    seen = view_image(stripes, View(Box(), False), (8, 8))
    assert np.abs(seen[:, 1:-1].astype(int) - 127).max() <= 16


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("label_size", [(96, 128), (24, 32), (48, 50)])
def test_image_and_label_show_the_same_place(flip: bool, label_size: tuple[int, int]) -> None:
    """A picture whose values say where they are, and a label that does too, at another size."""
    rows, columns = np.mgrid[0:96, 0:128]
    x = (columns + 0.5) / 128  # half-pixel centres
    y = (rows + 0.5) / 96
    image = np.stack([x * 255, y * 255, x * 0], axis=-1).round().astype(np.uint8)
    label_x = np.tile((np.arange(label_size[1]) + 0.5) / label_size[1], (label_size[0], 1))
    label_y = np.tile(((np.arange(label_size[0]) + 0.5) / label_size[0])[:, None], label_size[1])
    view = View(Box(left=0.21, top=0.13, right=0.83, bottom=0.77), flip)
    seen = view_image(image, view, (48, 56)).astype(np.float64) / 255
    kind = ScalarField("1/m")
    for channel, label in ((0, label_x), (1, label_y)):
        sampled = kind.sample(label.astype(np.float32), view.box, (48, 56), view.flip)
        # One cell of the seen picture is about 0.012 wide; the image is rounded to 1/255.
        assert np.abs(sampled - seen[:, :, channel]).max() < 0.006


def test_class_borders_stay_within_half_a_pixel_of_the_image() -> None:
    kind = ClassMap(("left", "right"))
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 40:] = 255
    label = np.zeros((16, 16), np.uint8)
    label[:, 10:] = 1  # 40 / 64 = 10 / 16
    for position in range(40):
        augmentation = Augmentation(scale=(0.3, 1.0), flip=0.5)
        view = draw_view(64, 64, augmentation, sample_generator(1, position))
        seen = view_image(image, view, (32, 32))[16, :, 0] > 127
        sampled = kind.sample(label, view.box, (32, 32), view.flip)[16] == 1
        assert (seen != sampled).sum() <= 1
