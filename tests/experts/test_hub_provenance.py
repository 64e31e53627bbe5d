"""What is known of checkpoints, and what may be stated of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.experts.hub import FACTS, NYU, Checkpoint, benchmarks_of, by_name, licence_of, state
from cliptex.experts.load import ReplicatedExpert
from cliptex.experts.protocol import ExpertSpec, Prediction, concurrency_of
from cliptex.labels.kinds import ScalarField


def repository(source: str, revision: str = "abc") -> Checkpoint:
    return Checkpoint(Path("."), source.rsplit("/", 1)[-1], source, revision, "0" * 64)


def test_listed_repositories() -> None:
    assert licence_of(repository("Intel/dpt-large")) == "Apache-2.0"
    assert benchmarks_of(repository("Intel/dpt-large")) == ()
    assert benchmarks_of(repository("Intel/zoedepth-kitti")) == ("kitti",)
    assert benchmarks_of(repository("Intel/zoedepth-nyu-kitti")) == (*NYU, "kitti")
    panoptic = repository("facebook/mask2former-swin-small-coco-panoptic")
    assert benchmarks_of(panoptic, ("coco",)) == ("coco",) and licence_of(panoptic) == "unknown"
    assert all(source.count("/") == 1 for source in FACTS)


def test_folders_and_unlisted_repositories() -> None:
    for found in (repository("me/dpt-large"), repository("Intel/dpt-large", revision="")):
        assert licence_of(found) == "unknown" and benchmarks_of(found) == ("unknown",)
    assert benchmarks_of(repository("me/glpn-NYU"), ("coco",)) == ("coco", *NYU, "unknown")


def test_by_name__whole_words() -> None:
    assert by_name("dpt_nyu.v2-kitti") == (*NYU, "kitti") and by_name("nyukon") == ()


class Bare:
    spec = ExpertSpec(
        name="bare",
        kind=ScalarField("1/m"),
        source="a test",
        revision="",
        weights_sha256="",
        licence="unknown",
        learnt_from=("voc", "unknown"),
    )

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        return [Prediction(image.mean(axis=2)) for image in images]


def test_state__fills_in_what_is_unknown_alone() -> None:
    both = ReplicatedExpert([Bare(), Bare()])
    assert state(both) is both
    found = state(both, licence="MIT", learnt_from=("voc", "coco"))
    assert (found.spec.licence, found.spec.learnt_from) == ("MIT", ("voc", "coco"))
    assert concurrency_of(found) == 2
    image = np.ones((2, 2, 3), np.uint8)
    assert np.array_equal(found.predict([image])[0].label, np.ones((2, 2)))
    again = state(found, licence="GPL", learnt_from=("ade20k",))
    assert again is found
    assert state(both, learnt_from=()).spec.learnt_from == ("voc",)
