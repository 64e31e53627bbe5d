"""A plan is measured on real labels of the data set at hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cliptex.labelling.plan import plan_labels
from cliptex.labels.kinds import ClassMap, UnitVector


def test_plan(shards, make_expert) -> None:
    expert = make_expert()
    plan = plan_labels(shards, expert, count=6, batch_size=3)
    assert (plan.images, plan.sampled, plan.labelled) == (12, 6, 6)
    assert [len(batch) for batch in expert.batches] == [1, 3, 3], "one to warm up"
    assert plan.total_bytes == pytest.approx(12 * plan.bytes_per_image)
    assert plan.bytes_per_image > 1024, "a tar header and a label at least"
    assert plan.hours == pytest.approx(12 / plan.images_per_second / 3600)
    assert 0 < plan.error.worst < 1e-3, "the codec's error, not none and not large"
    text = str(plan)
    for word in ("bytes per image", "hours", "codec", "% of the range"):
        assert word in text


def test_plan__times_the_expert(shards, make_expert) -> None:
    def slow(image: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return np.ones((4, 4), np.uint8)

    plan = plan_labels(shards, make_expert(slow, ClassMap(("background", "cat"))), count=4)
    assert 5 < plan.expert_images_per_second <= 20
    assert plan.images_per_second < plan.expert_images_per_second
    assert plan.error.worst == 0 and "none" in str(plan)


def test_plan__with_failures(make_shards, draw_picture, make_expert) -> None:
    shards = make_shards([b"broken", draw_picture(1, (8, 8)), draw_picture(2, (8, 8))])
    normals = make_expert(lambda image: np.tile([0.6, 0.0, 0.8], (4, 6, 1)), UnitVector())
    plan = plan_labels(shards, normals, count=50)
    assert (plan.sampled, plan.labelled) == (3, 2)
    assert 0 < plan.error.worst < 1.36

    def fail(image: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such device")

    with pytest.raises(ValueError, match="no such device"):
        plan_labels(make_shards([draw_picture(1, (8, 8))]), make_expert(fail))
    with pytest.raises(ValueError, match="at least one"):
        plan_labels(shards, normals, count=0)
