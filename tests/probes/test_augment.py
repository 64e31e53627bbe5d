import numpy as np
import pytest

from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.probes.augment import (
    CropAugmentation,
    Window,
    augmented,
    cut_image,
    cut_label,
    draw_window,
)

KIND = ClassMap(classes=("a", "b"))


def test_window__short_side_stays_in_its_range_and_the_long_one_below_its_limit():
    rng = np.random.default_rng(0)
    drawn = [draw_window(300, 400, 512, CropAugmentation(), rng) for _ in range(300)]
    short = [w.size[0] for w in drawn]
    assert min(short) >= 256 and max(short) <= 768 and max(short) - min(short) > 450
    assert all(abs(w.size[1] - w.size[0] * 4 / 3) <= 1 for w in drawn)
    for w in drawn:
        for first, size in zip((w.top, w.left), w.size, strict=True):
            assert 0 <= first <= max(0, size - 512)
    assert 0.4 < np.mean([w.flip for w in drawn]) < 0.6
    wide = [draw_window(100, 400, 512, CropAugmentation(), rng) for _ in range(50)]
    assert max(w.size[1] for w in wide) == 1024 and max(w.size[0] for w in wide) == 256


def test_cut__by_hand_with_padding_and_flip():
    label = np.array([[0, 1], [1, 1]], np.uint8)
    image = np.stack([label * 255] * 3, -1)
    window = Window(size=(2, 2), top=0, left=0, flip=True)
    assert cut_label(KIND, label, window, 3).tolist() == [[255, 1, 0], [255, 1, 1], [255] * 3]
    seen = cut_image(image, window, 3)
    assert seen[..., 0].tolist() == [[0, 255, 0], [0, 255, 255], [0, 0, 0]]
    inner = Window(size=(4, 4), top=1, left=2, flip=False)  # each pixel became four
    assert cut_label(KIND, label, inner, 2).tolist() == [[1, 1], [1, 1]]


def test_cut__other_kinds_pad_with_what_is_invalid_and_normals_turn():
    window = Window(size=(1, 1), top=0, left=0, flip=True)
    depth = cut_label(ScalarField(unit="1/m"), np.array([[2.0]], np.float32), window, 2)
    assert depth[0, 1] == 2 and np.isnan(depth).sum() == 3
    normal = cut_label(UnitVector(), np.array([[[0.6, 0, 0.8]]], np.float32), window, 2)
    np.testing.assert_allclose(normal[0, 1], [-0.6, 0, 0.8], rtol=1e-6)
    assert not normal[0, 0].any() and not normal[1].any()


@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (8, 8)])
def test_picture_and_label_stay_together(shape):
    """Where the picture is plainly one of two colours, the label is that colour's class."""
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 2, ((shape[0] + 3) // 4, (shape[1] + 3) // 4)).astype(np.uint8)
    ids = ids.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
    image = np.where(ids[..., None] == 1, np.uint8(250), np.uint8(60)).repeat(3, -1)
    crops = CropAugmentation(short_side=(12, 40), longest=60, class_share=None)
    for _ in range(20):
        seen, target = augmented(image, ids, KIND, 24, crops, rng)
        assert (target[seen[..., 0] > 245] == 1).all() and (target == 1).any()
        assert (target[(seen[..., 0] > 50) & (seen[..., 0] < 65)] == 0).all()
        assert (target[seen[..., 0] == 0] == 255).all()


def test_class_share__a_crop_of_one_class_is_drawn_again():
    ids = np.zeros((64, 64), np.uint8)
    ids[40:, 40:] = 1
    image = np.stack([ids] * 3, -1)
    shares = []
    for limit in (None, 0.75):
        crops = CropAugmentation(short_side=(64, 64), class_share=limit)
        rng = np.random.default_rng(0)
        targets = [augmented(image, ids, KIND, 16, crops, rng)[1] for _ in range(60)]
        shares.append(np.mean([max((t == 0).mean(), (t == 1).mean()) > 0.75 for t in targets]))
    assert shares[1] < 0.6 * shares[0]


def test_same_generator_same_crop():
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    ids = np.zeros((30, 40), np.uint8)
    crops = CropAugmentation(short_side=(20, 60))
    one, two = (augmented(image, ids, KIND, 32, crops, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
