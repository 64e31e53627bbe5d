"""Sets that do not fit a probe are refused before it learns, on both roads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.datasets import DenseItem, ImageFolder
from cliptex.labels.kinds import ClassMap, Kind, ScalarField
from cliptex.probes import fast
from cliptex.probes.baselines import run_dense_baseline, run_majority_baseline
from cliptex.probes.config import GroupConfig, Schedule
from cliptex.probes.heads import ProbeGroup
from cliptex.probes.task import MapSplit, class_item, dense_item, task_of

GOOD = np.zeros((16, 12, 3), np.uint8)


@dataclass
class One:
    """A set of the same item, over and over."""

    image: np.ndarray
    target: np.ndarray
    kind: Kind = ClassMap(("a", "b"))
    name: str = "mine"
    count: int = 4

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DenseItem:
        return DenseItem(self.image, self.target)


def group() -> GroupConfig:
    return GroupConfig(
        heads=("linear",),
        seeds=(0,),
        schedule=Schedule(lr=0.1),
        augmentation=None,
        resolution=16,
        epochs=1,
        batch_size=2,
    )


@pytest.mark.parametrize(
    ("image", "target", "said"),
    [
        (GOOD, np.zeros((8, 12), np.uint8), r"target of shape \(8, 12\), .* 16x12 pixels"),
        (GOOD, np.zeros((12, 16), np.uint8), r"target of shape \(12, 16\), .* 16x12 pixels"),
        (GOOD.astype(np.float32), np.zeros((16, 12), np.uint8), r"float32 \(16, 12, 3\), expected"),
        (
            GOOD[..., 0],
            np.zeros((16, 12), np.uint8),
            r"uint8 \(16, 12\), expected uint8 \(H, W, 3\)",
        ),
        (np.zeros((16, 12, 4), np.uint8), np.zeros((16, 12), np.uint8), r"uint8 \(16, 12, 4\)"),
    ],
)
def test_dense__items_that_do_not_fit_name_set_and_index(
    encoder, config, image, target, said, probe_one
):
    said = f"mine, item 0: .*{said}"
    good, bad = One(GOOD, np.zeros((16, 12), np.uint8)), One(image, target)
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), bad, None, good, config(), model="m")
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), good, None, bad, config(), model="m")
    with pytest.raises(ValueError, match=said):
        run_dense_baseline(good, bad, config())
    split = MapSplit(bad, group())
    for read in (split.plain, split.test, lambda i: split.drawn(i, None, np.random.default_rng())):
        with pytest.raises(ValueError, match=said):
            read(0)


def test_items__that_fit_are_given_on(colours):
    item = dense_item(One(GOOD, np.zeros((16, 12, 3), np.float32)), 3)
    assert item[0] is GOOD and item[1].shape == (16, 12, 3)
    assert class_item(colours(1, 0), 0)[0].shape == (16, 16, 3)


def test_class__items_that_do_not_fit(encoder, config, colours, probe_one):
    class Odd(colours):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return (image, 4) if self.name == "label" else (image / 255, label)

    good = colours(4, 0)
    for name, said in (("label", "class 4, expected 0 to 3"), ("float", "float64 .16, 16, 3.")):
        bad = Odd(4, 0, name=name)
        with pytest.raises(ValueError, match=f"{name}, item 0: .*{said}"):
            probe_one(encoder(), bad, None, good, config(), model="m")
        with pytest.raises(ValueError, match=f"{name}, item 1: .*{said}"):
            MapSplit(bad, group()).plain(1)


def test_empty_sets__are_refused_first(encoder, config, colours, probe_one):
    full, none = One(GOOD, np.zeros((16, 12), np.uint8)), One(GOOD, GOOD, name="none", count=0)
    for sets in ((none, None, full), (full, none, full), (full, None, none)):
        with pytest.raises(ValueError, match="none holds no picture"):
            probe_one(encoder(), *sets, config(), model="m")
    with pytest.raises(ValueError, match="none holds no picture"):
        ProbeGroup.split_of(none, group())
    bare = colours(0, 0, name="bare")
    with pytest.raises(ValueError, match="bare holds no picture"):
        probe_one(encoder(), colours(4, 0), None, bare, config(), model="m")
    with pytest.raises(ValueError, match="bare holds no picture"):
        ProbeGroup.split_of(bare, group())


def test_depth__out_of_range_is_said_before_training(encoder, config, probe_one):
    far = One(GOOD, np.full((16, 12), 40, np.float32), ScalarField(unit="m"))
    said = r"no pixel of the training set mine lies within `depth_range` \(0.0, 10.0\)"
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), far, None, far, config(), model="m")
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), far, None, far, group())
    far.target[0, 0] = 9  # a single pixel is enough
    probe_one(encoder(), far, None, far, config(learning_rates=(0.1,)), model="m")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for split, classes in (("train", "abc"), ("val", "ab")):
        for name in classes:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            Image.fromarray(GOOD).save(tmp_path / "set" / split / name / "0.png")
    return tmp_path / "set"


def test_classes__that_differ_are_named_with_their_folders(encoder, config, folders, probe_one):
    train, val = ImageFolder(folders, "train"), ImageFolder(folders, "val")
    said = "set/train and .*set/val do not have the same classes: only .*set/train has 'c' .1 of 3"
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), train, None, val, config(), model="m")
    with pytest.raises(ValueError, match=said):
        run_majority_baseline(train, val)
    with pytest.raises(ValueError, match=said):
        probe_one(encoder(), train, None, val, group())


def test_classes__in_another_order(encoder, config, colours, probe_one):
    turned = colours(4, 0, name="turned", classes=colours.classes[::-1])
    with pytest.raises(ValueError, match="colours and turned do not .*: they are in another order"):
        probe_one(encoder(), colours(4, 0), None, turned, config(), model="m")


def test_convert__a_class_id_beyond_the_kind_is_an_error_before_the_loss_sees_it():
    task = task_of(One(GOOD, GOOD), fast())
    known = np.array([[0, 1], [255, 1]], np.uint8)
    np.testing.assert_array_equal(task.convert(known), known)
    with pytest.raises(ValueError, match="class id 7 is neither below 2 nor the ignore id 255"):
        task.convert(np.array([[0, 7]], np.uint8))
