from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from cliptex.data.transforms import (
    Augmentation,
    View,
    draw_view,
    reduction,
    sample_generator,
    view_image,
)
from cliptex.labels.kinds import Box, ClassMap, ScalarField
from cliptex.shards.images import decode_image


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


def test_by_default_pictures_are_seen_as_the_authors_library_shows_them() -> None:
    """docs/decisions.md: nine tenths of the area at least, never mirrored."""
    for view in [draw_view(60, 60, Augmentation(), sample_generator(1, p)) for p in range(100)]:
        box = view.box
        assert (box.right - box.left) * (box.bottom - box.top) >= 0.9 - 1e-9 and not view.flip


def test_large_crops_of_a_tall_picture_fall_back_to_its_centre() -> None:
    (view,) = views(1, 120, 30)
    height = 30 / (3 / 4) / 120
    assert view.box.top == pytest.approx((1 - height) / 2)
    assert view.box.bottom == pytest.approx((1 + height) / 2)
    assert (view.box.left, view.box.right) == (0, 1)


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


@pytest.mark.parametrize(("side", "worst", "mean"), [(500, 0, 0), (700, 0, 0), (1500, 2, 0.4)])
def test_only_large_pictures_are_averaged_first(side: int, worst: int, mean: float) -> None:
    """Pillow's reducing_gap of 3: of a picture below 6 times the size nothing changes."""
    rows, columns = np.mgrid[0:side, 0:side]
    rng = np.random.default_rng(0)
    wave = 127 + 100 * np.sin(rows / 9) * np.cos(columns / 5)
    image = (wave[:, :, None] + rng.normal(0, 20, (side, side, 3))).clip(0, 255).astype(np.uint8)
    box = (0.1 * side, 0.05 * side, 0.98 * side, 0.95 * side)
    view = View(Box(left=0.1, top=0.05, right=0.98, bottom=0.95), flip=False)
    single = Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR, box=box)
    error = np.abs(view_image(image, view, (224, 224)).astype(int) - np.asarray(single))
    assert error.max() <= worst and error.mean() <= mean
    assert error.any() == (worst > 0)


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


def test_crops_are_spread_like_those_of_torchvision() -> None:
    """Its boxes are rounded to pixels, hence the large picture; the tails include fallbacks."""
    height, width, count = 900, 1600, 1500
    image = torch.empty(1, height, width)
    torch.manual_seed(0)
    theirs = np.array(  # top, left, height, width
        [RandomResizedCrop.get_params(image, [0.3, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    )
    boxes = [view.box for view in views(count, height, width, scale=(0.3, 1.0))]
    ours = np.array(
        [
            (
                box.top * height,
                box.left * width,
                (box.bottom - box.top) * height,
                (box.right - box.left) * width,
            )
            for box in boxes
        ]
    )
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        mine, other = (np.quantile(boxes, quantile, axis=0) for boxes in (ours, theirs))
        assert np.abs(mine - other).max() < 40  # standard error about 15


@pytest.mark.parametrize(
    ("shape", "box", "size", "by"),
    [
        ((480, 640), Box(), (480, 640), 1),
        ((480, 640), Box(), (241, 320), 1),  # half of 480 is less than 241
        ((480, 640), Box(), (240, 320), 2),
        ((480, 640), Box(right=0.5), (240, 320), 1),  # 320 columns are seen
        ((480, 640), Box(), (100, 100), 4),
        ((4800, 6400), Box(), (32, 32), 8),
        ((100, 100), Box(), (200, 200), 1),
    ],
)
def test_reductions_by_hand(shape, box: Box, size, by: int) -> None:
    assert reduction(*shape, View(box, False), size) == by


@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("shape", [(240, 320), (237, 315), (233, 321)])
def test_a_reduced_jpeg_shows_the_same_place(by: int, shape: tuple[int, int]) -> None:
    """Sides that are no multiples of 8 are rounded up by the decoder; nothing may move by that."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    x, y = (columns + 0.5) / shape[1], (rows + 0.5) / shape[0]
    picture = np.stack([x * 255, y * 255, x * 0], axis=-1).round().astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=98, subsampling=0)
    reduced = decode_image(data.getvalue(), min_side=min(shape) // by)
    assert reduced.shape[:2] == (-(-shape[0] // by), -(-shape[1] // by))
    view = View(Box(left=0.1, top=0.2, right=0.8, bottom=0.9), flip=True)
    extent = (shape[0] / by, shape[1] / by)
    seen = view_image(reduced, view, (20, 24), extent=extent)[2:-2, 2:-2].astype(float)
    whole = view_image(picture, view, (20, 24))[2:-2, 2:-2].astype(float)
    assert np.abs((seen - whole).mean(axis=(0, 1))).max() < 1  # at 8, half a pixel is 4
    assert np.abs(seen - whole).max() < 4
