"""Confidence from flip consistency: golden values by hand, and what a wrapper must not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cliptex.experts.load import ReplicatedExpert
from cliptex.experts.protocol import ExpertSpec, Prediction, concurrency_of
from cliptex.experts.reliability import (
    FLIP,
    reduce_confidence,
    with_confidence,
)
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

CLASSES = ClassMap(("background", "ball", "chair"))
RNG = np.random.default_rng(0)


class Scripted:
    """Labels an image by `label`; remembers the images of each batch; knows a confidence."""

    def __init__(self, kind: Kind, label: Callable[[np.ndarray], np.ndarray]) -> None:
        self.spec = ExpertSpec(
            name="scripted",
            kind=kind,
            source="a test",
            revision="1",
            weights_sha256="",
            licence="none",
            confidence="a guess",
        )
        self.label = label
        self.batches: list[list[np.ndarray]] = []

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        self.batches.append(list(images))
        guess = np.full((2, 2), 0.5, np.float32)
        return [Prediction(self.label(x), confidence=guess, instances={1: 2}) for x in images]


def brightness(image: np.ndarray) -> np.ndarray:
    return 1 + image.mean(axis=2, dtype=np.float32)


def pictures(count: int = 2) -> list[np.ndarray]:
    return [RNG.integers(0, 256, (6, 8 + i, 3), dtype=np.uint8) for i in range(count)]


# --- cells ---------------------------------------------------------------------------------------


def test_cells_average_what_is_valid() -> None:
    values = np.full((128, 64), np.nan, np.float32)
    values[:2, :2] = [[1.0, 0.5], [np.nan, np.nan]]
    values[2:4, :2] = 0.25
    found = reduce_confidence(values)
    assert found.shape == (64, 32) and found.dtype == np.float32
    assert found[:3, 0].tolist() == pytest.approx([0.75, 0.25, 0])


def test_small_maps_stay_as_they_are() -> None:
    values = RNG.random((5, 7)).astype(np.float32)
    assert np.allclose(reduce_confidence(values), values)
    assert reduce_confidence(np.full((3, 100), np.nan, np.float32)).max() == 0


@pytest.mark.parametrize("size", [(65, 64), (333, 512), (100, 1000), (1, 200)])
def test_any_size_keeps_the_mean_and_the_range(size: tuple[int, int]) -> None:
    values = RNG.random(size).astype(np.float32)
    found = reduce_confidence(values)
    assert max(found.shape) == 64
    assert values.min() <= found.min() and found.max() <= values.max()
    assert found.mean() == pytest.approx(values.mean(), abs=0.02)


# --- experts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["own", "flip", "none"])
def test_labels_are_those_of_the_bare_expert(how) -> None:
    images = pictures()
    expert = Scripted(ScalarField("1/m"), brightness)
    bare = expert.predict(images)
    found = with_confidence(expert, how).predict(images)
    assert [p.label.tobytes() for p in found] == [p.label.tobytes() for p in bare]
    assert [p.instances for p in found] == [p.instances for p in bare]


def test_what_the_spec_says() -> None:
    expert = Scripted(CLASSES, brightness)
    specs = {how: with_confidence(expert, how).spec for how in ("own", "flip", "none")}  # type: ignore[arg-type]
    assert specs["own"] is expert.spec
    assert (specs["flip"].confidence, specs["none"].confidence) == (FLIP, "")
    assert specs["flip"].name == specs["none"].name == "scripted"
    with pytest.raises(ValueError, match="own, flip, none"):
        with_confidence(expert, "loud")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["own", "flip", "none"])
def test_all_replicas_are_kept_busy(how) -> None:
    both = ReplicatedExpert([Scripted(CLASSES, brightness), Scripted(CLASSES, brightness)])
    assert concurrency_of(with_confidence(both, how)) == 2


def test_no_confidence_is_none() -> None:
    expert = with_confidence(Scripted(CLASSES, brightness), "none")
    assert [p.confidence for p in expert.predict(pictures())] == [None, None]


def test_an_expert_that_sees_no_left_and_right_is_sure() -> None:
    expert = Scripted(ScalarField("1/m"), brightness)
    for found in with_confidence(expert, "flip").predict(pictures()):
        assert found.confidence is not None and (found.confidence == 1).all()
    straight, mirrored = expert.batches  # a batch each: no more memory than the bare expert
    assert np.array_equal(mirrored[1], straight[1][:, ::-1])
    assert mirrored[1].flags.c_contiguous


def test_a_wrong_half_is_unsure() -> None:
    def left_is_ball(image: np.ndarray) -> np.ndarray:
        """Class 1 on the left whatever the picture shows; class 2 where it is bright."""
        label = np.where(image[:, :, 0] > 128, 2, 0).astype(np.uint8)
        label[:, : image.shape[1] // 4] = 1
        return label

    image = np.zeros((40, 80, 3), np.uint8)
    image[:10] = 255
    (found,) = with_confidence(Scripted(CLASSES, left_is_ball), "flip").predict([image])
    assert found.confidence is not None and found.confidence.shape == (32, 64)
    # Columns 0-19 are called ball, and 60-79 by the mirrored image alone; the rest agrees.
    assert (found.confidence[:, :16] == 0).all() and (found.confidence[:, 48:] == 0).all()
    assert (found.confidence[:, 17:47] == 1).all()


def test_normals_are_mirrored_by_their_own_rule() -> None:
    def by_colour(image: np.ndarray) -> np.ndarray:
        """A normal to the right where the right neighbour is brighter: it flips with the image."""
        slope = np.gradient(image.mean(axis=2), axis=1)
        return np.stack([slope, np.zeros_like(slope), np.full_like(slope, 20)], axis=2)

    def always_right(image: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([1, 0, 1.0]), image.shape)

    (good,) = with_confidence(Scripted(UnitVector(), by_colour), "flip").predict(pictures(1))
    (bad,) = with_confidence(Scripted(UnitVector(), always_right), "flip").predict(pictures(1))
    assert good.confidence is not None and good.confidence.min() > 0.999
    assert bad.confidence is not None and bad.confidence.max() < 1e-6  # (1,0,1) against (-1,0,1)


def test_labels_of_another_form_are_left_to_the_engine() -> None:
    expert = with_confidence(Scripted(CLASSES, brightness), "flip")  # floats are no classes
    assert [p.confidence for p in expert.predict(pictures())] == [None, None]


def test_labels_of_two_sizes_meet_at_the_label_s() -> None:
    def smaller_when_bright_left(image: np.ndarray) -> np.ndarray:
        step = 2 if image[0, 0, 0] else 1
        return np.full((image.shape[0] // step, image.shape[1] // step), 3.0, np.float32)

    image = np.zeros((8, 8, 3), np.uint8)
    image[0, 7] = 255
    expert = with_confidence(Scripted(ScalarField("1/m"), smaller_when_bright_left), "flip")
    (found,) = expert.predict([image])
    assert found.confidence is not None and found.confidence.shape == (8, 8)
    assert (found.confidence == 1).all()


def test_a_real_expert_of_the_playroom() -> None:
    from cliptex.experts.playroom import load_playroom_expert
    from cliptex.playroom.render import render
    from cliptex.playroom.scene import sample_scene

    image = render(sample_scene("home", "train", 3, seed=0), 64, 64).image
    for task in ("segmentation", "depth", "normals"):
        expert = load_playroom_expert(task)
        (found,) = with_confidence(expert, "flip").predict([image])
        assert np.array_equal(found.label, expert.predict([image])[0].label)
        assert found.confidence is not None and 0.3 < found.confidence.mean() < 0.9999
