from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cliptex.data.pictures import ByteBudgetCache, Pictures
from cliptex.data.transforms import Augmentation, view_image
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image, jpeg_size

SHAPE = (333, 501)
SIZE = (80, 96)


def picture() -> np.ndarray:
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    waves = 127 + 60 * np.sin(columns / 17) + 60 * np.cos(rows / 23)
    return np.stack([waves, rows * 0.5, columns * 0.5], axis=-1).round().astype(np.uint8)


def encoded(form: str, orientation: int = 1) -> bytes:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(data, form, quality=95, exif=exif)
    return data.getvalue()


@pytest.fixture
def pictures(write_shards):
    def make(data: list[bytes], budget: int = 0) -> Pictures:
        shards: ImageTextShards = write_shards([(d, f"thing {i}") for i, d in enumerate(data)])
        augmentation = Augmentation(scale=(0.5, 1.0), flip=0.5)
        cache = ByteBudgetCache(budget)
        return Pictures(shards=shards, augmentation=augmentation, seed=1, cache=cache)

    return make


def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what is decoded from now on."""
    shapes: list[tuple[int, ...]] = []

    def watched(data: bytes, *, min_side: int | None = None) -> np.ndarray:
        image = decode_image(data, min_side=min_side)
        shapes.append(image.shape)
        return image

    monkeypatch.setattr("cliptex.data.pictures.decode_image", watched)
    return shapes


def test_a_large_jpeg_is_decoded_smaller_and_shows_the_same(pictures, monkeypatch) -> None:
    source = pictures([encoded("JPEG")])
    shapes = decoded_sizes(monkeypatch)
    for position in range(12):
        seen = source.seen(0, position, SIZE)
        whole = view_image(decode_image(encoded("JPEG")), seen.view, SIZE)
        assert np.abs(seen.image.astype(float) - whole).mean() < 1.0
    assert set(shapes) == {(167, 251, 3), (84, 126, 3)} or set(shapes) == {(167, 251, 3)}


@pytest.mark.parametrize(("form", "orientation"), [("PNG", 1), ("JPEG", 3), ("JPEG", 6)])
def test_other_images_are_decoded_whole(pictures, monkeypatch, form: str, orientation: int) -> None:
    """Turning would put the last, partly covered row first."""
    data = encoded(form, orientation)
    assert jpeg_size(data) is None
    shapes = decoded_sizes(monkeypatch)
    seen = pictures([data]).seen(0, 5, SIZE)
    assert np.array_equal(seen.image, view_image(decode_image(data), seen.view, SIZE))
    assert set(shapes) <= {(*SHAPE, 3), (*SHAPE[::-1], 3)}


def test_small_targets_enlarge_nothing(pictures, monkeypatch) -> None:
    shapes = decoded_sizes(monkeypatch)
    pictures([encoded("JPEG")]).seen(0, 0, (300, 300))
    assert shapes == [(*SHAPE, 3)]


def test_pixels_do_not_depend_on_what_was_seen_before(pictures) -> None:
    """A cache must not hand out a picture decoded for a smaller view."""
    data = [encoded("JPEG"), encoded("PNG")]
    cached = pictures(data, budget=1 << 30)
    wanted = [(i, p, s) for p in range(8) for i in (0, 1) for s in (SIZE, (300, 320), (30, 40))]
    first = [cached.seen(*w).image for w in wanted]
    again = [cached.seen(*w).image for w in reversed(wanted)][::-1]
    fresh = Pictures(
        shards=cached.shards,
        augmentation=cached.augmentation,
        seed=cached.seed,
        cache=ByteBudgetCache(0),
    )
    for one, other, wanted_one in zip(first, again, wanted, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, fresh.seen(*wanted_one).image)


def test_a_cached_picture_is_not_decoded_again(pictures, monkeypatch) -> None:
    source = pictures([encoded("JPEG")], budget=1 << 30)
    shapes = decoded_sizes(monkeypatch)
    for position in range(6):
        source.seen(0, position, (300, 300))
    assert len(shapes) == 1


def test_what_cannot_be_decoded_is_replaced(pictures) -> None:
    whole = encoded("JPEG")
    source = pictures([whole[: len(whole) // 2], whole])
    for position in range(4):
        assert source.seen(0, position, SIZE).key == "001"


def test_nothing_but_broken_pictures_is_an_error(pictures) -> None:
    with pytest.raises(ValueError, match="none of the 1 images"):
        pictures([encoded("JPEG")[:30]]).seen(0, 0, SIZE)
