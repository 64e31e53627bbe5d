"""Scores against ground truth, by hand; and that what is compared is what is claimed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cliptex.datasets.protocol import DenseItem
from cliptex.labelling.engine import label_shards
from cliptex.labelling.score import describe_scores, score_expert_on, score_store_on
from cliptex.labels.class_map import match_classes
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.reader import LabelReader

VOC = ClassMap(("background", "cat", "tvmonitor", "bird"))
METRES = ScalarField("m")


@dataclass
class Truths:
    """Black pictures with given ground truths; pixel (0, 0) counts them."""

    kind: Kind
    targets: list[np.ndarray]
    name: str = "voc"
    keys: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> DenseItem:
        image = np.zeros((*self.targets[index].shape[:2], 3), np.uint8)
        image[0, 0] = index
        return DenseItem(image=image, target=self.targets[index])


def values(rows) -> dict[str, float]:
    return {row.metric: row.value for row in rows}


def test_classes__by_name(make_expert) -> None:
    """The expert calls a TV by another name, knows an elephant, and no bird."""
    kind = ClassMap(("background", "elephant", "TV", "cat"))
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 3]], np.uint8)
    answer = np.array([[0, 1, 3, 2], [2, 2, 3, 0]], np.uint8)
    rows = score_expert_on(Truths(VOC, [truth]), make_expert(lambda image: answer, kind))
    # background 2 / 3, cat 1 / 2, tvmonitor 2 / 3, bird 0 / 1; the ignored pixel does not count
    assert values(rows)["miou"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 2 / 3 + 0) / 4)
    assert values(rows)["miou_matched"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert values(rows)["pixel_accuracy"] == pytest.approx(100 * 5 / 7)
    protocol = rows[0].protocol
    assert protocol["unmatched_expert_classes"] == ["elephant"]
    assert protocol["unmatched_dataset_classes"] == ["bird"]
    assert protocol["unmatched_become"] == "background"
    assert (rows[0].task, rows[0].n, rows[0].leak) == ("segmentation", 1, False)
    assert "elephant" in describe_scores(rows)


def test_classes__one_matrix_over_images_and_enlarged(make_expert) -> None:
    """IoU is of all pixels together, not a mean over images; labels of half the size."""
    truths = [np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)]
    answers = [np.zeros((2, 2), np.uint8), np.array([[1, 0], [0, 0]], np.uint8)]
    expert = make_expert(lambda image: answers[image[0, 0, 0]], VOC)
    rows = score_expert_on(Truths(VOC, truths), expert, batch_size=1)
    # background 16 / 28, cat 4 / 16
    assert values(rows)["miou"] == pytest.approx(100 * (16 / 28 + 4 / 16) / 2)


def test_classes__without_a_background(make_expert) -> None:
    """Where the benchmark has no background, an unknown class and an ignored pixel are wrong."""
    dataset = Truths(ClassMap(("wall", "floor")), [np.zeros((1, 4), np.uint8)])
    answer = np.array([[1, 0, 255, 2]], np.uint8)
    rows = score_expert_on(
        dataset, make_expert(lambda image: answer, ClassMap(("x", "floor", "wall")))
    )
    assert values(rows)["miou"] == pytest.approx(25)
    assert rows[0].protocol["unmatched_become"] == "no class"


def test_classes__that_share_no_name(make_expert) -> None:
    with pytest.raises(ValueError, match="share no name"):
        ClassMap(("background", "zebra")).label_scorer(VOC)
    with pytest.raises(ValueError, match="cannot be scored"):
        UnitVector().label_scorer(METRES)
    assert match_classes(("Dining Table", "potted-plant"), ("diningtable", "pottedplant")) == [0, 1]


def test_depth__aligned_and_not(make_expert) -> None:
    depth = np.array([[1.0, 2.0, 4.0, 12.0, np.nan]], np.float32)
    dataset = Truths(METRES, [depth], name="nyu-depth")
    double = np.array([[2.0, 1.0, 0.5, 9.0, 9.0]], np.float32)  # twice the true disparity
    rows = score_expert_on(dataset, make_expert(lambda image: double))
    assert values(rows)["absrel"] == pytest.approx(0, abs=1e-6)
    assert values(rows)["absrel_unaligned"] == pytest.approx(0.5), "12 m is out of range"
    assert all(row.better == "lower" and row.task == "depth" for row in rows)
    relative = make_expert(lambda image: 100 - 3 / double, ScalarField("relative disparity"))
    assert list(values(score_expert_on(dataset, relative))) == ["absrel"]


def test_depth__clamps_and_counts_holes(make_expert) -> None:
    dataset = Truths(METRES, [np.array([[2.0, 5.0, 5.0, 2.0]], np.float32)])
    answer = np.array([[0.5, -1.0, np.nan, np.nan]], np.float32)
    rows = score_expert_on(dataset, make_expert(lambda image: answer))
    assert values(rows)["absrel_unaligned"] == pytest.approx((0 + (10 - 5) / 5) / 2)
    assert rows[0].protocol["pixels_without_prediction"] == 0.5


def test_normals(make_expert) -> None:
    truth = np.zeros((1, 4, 3), np.float32)
    truth[0, :3, 2] = 1
    answer = np.array(
        [[[0, 0, 1], [np.sin(np.radians(20)), 0, np.cos(np.radians(20))], [0, 0, 0], [1, 0, 0]]]
    )
    dataset = Truths(UnitVector(), [truth])
    found = values(score_expert_on(dataset, make_expert(lambda image: answer, UnitVector())))
    assert found["mean"] == pytest.approx((0 + 20 + 90) / 3, abs=1e-3)
    assert found["median"] == pytest.approx(20, abs=1e-3)
    assert [found[m] for m in ("a11", "a22", "a30")] == pytest.approx([100 / 3, 200 / 3, 200 / 3])


def test_leak(make_expert) -> None:
    """A benchmark that the expert learnt from is marked."""

    class Learnt(make_expert):
        @property
        def spec(self):
            from dataclasses import replace

            return replace(super().spec, learnt_from=("voc",))

    expert = Learnt(lambda image: np.zeros((4, 4), np.uint8), VOC)
    dataset = Truths(VOC, [np.zeros((4, 4), np.uint8)])
    rows = score_expert_on(dataset, expert)
    assert all(row.leak for row in rows) and "LEAK" in describe_scores(rows)
    other = Truths(VOC, [np.zeros((4, 4), np.uint8)], name="ade20k")
    assert not any(row.leak for row in score_expert_on(other, expert))
    assert "UNKNOWN" not in describe_scores(score_expert_on(other, expert))


def test_a_store(shards, make_expert, tmp_path: Path) -> None:
    """Stored labels by key; keys without a label are counted, not scored."""
    ids = np.zeros((4, 4), np.uint8)
    folder = label_shards(shards, [make_expert(lambda image: ids, VOC)], tmp_path / "labels")[
        0
    ].folder
    truths = [np.zeros((8, 8), np.uint8)] * 3
    dataset = Truths(VOC, truths, keys=("00007", "nowhere", "00000"))
    rows = score_store_on(dataset, LabelReader(folder))
    assert values(rows)["miou"] == 100 and rows[0].n == 2
    assert rows[0].protocol["images_without_prediction"] == 1
    assert "as stored" in str(rows[0].protocol["predictions"])
    with pytest.raises(ValueError, match="names of its pictures"):
        score_store_on(Truths(VOC, truths, keys=("a", "b", "c")), LabelReader(folder))
