"""A plan is measured on real labels of the data set at hand."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from cliptex.experts.load import ReplicatedExpert
from cliptex.labelling import plan
from cliptex.labelling.options import LabelOptions
from cliptex.labelling.plan import plan_labels
from cliptex.labels.kinds import ClassMap, UnitVector


def test_plan(shards, make_expert) -> None:
    expert = make_expert()
    plan = plan_labels(shards, [expert], LabelOptions(batch_size=3), count=6)
    (found,) = plan.experts
    assert (plan.images, plan.sampled, found.labelled) == (12, 6, 6)
    assert [len(batch) for batch in expert.batches] == [1, 3, 3], "one to warm up"
    assert plan.total_bytes == pytest.approx(12 * found.bytes_per_image)
    assert found.bytes_per_image > 1024, "a tar header and a label at least"
    assert plan.hours == pytest.approx(12 / plan.images_per_second / 3600)
    coarse, fine = found.codecs
    assert (coarse.codec, fine.codec) == ("png-scalar-10", "png-scalar-16") and found.codec
    assert 0 < coarse.error.mean < coarse.error.worst <= 1.001 / 2044, "the codec's own bound"
    assert fine.error.worst <= 1.01 / 131068 and fine.encode_ms > 0 and fine.decode_ms > 0
    assert found.bytes_per_image > coarse.bytes_per_label > 50
    text = str(plan)
    for word in ("bytes per image", "hours", "png-scalar-10 (used)", "% of range", "decode ms"):
        assert word in text


def test_plan__times_the_expert(shards, make_expert) -> None:
    def slow(image: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return np.ones((4, 4), np.uint8)

    plan = plan_labels(shards, [make_expert(slow, ClassMap(("background", "cat")))], count=4)
    (found,) = plan.experts
    assert 0 < found.images_per_second <= 20, "50 ms an image at the least"
    assert plan.images_per_second < found.images_per_second
    assert [cost.error.worst for cost in found.codecs] == [0]


def test_plan__keeps_as_many_calls_busy_as_a_run(shards, make_expert) -> None:
    """Two replicas are called at once."""
    together = threading.Barrier(2, timeout=20)

    def meet(image: np.ndarray) -> np.ndarray:
        if len(experts[0].batches) + len(experts[1].batches) > 1:  # not the one that warms up
            together.wait()
        time.sleep(0.05)
        return np.ones((4, 4), np.float32) + np.arange(4, dtype=np.float32)

    experts = [make_expert(meet), make_expert(meet)]
    plan = plan_labels(shards, [ReplicatedExpert(experts)], LabelOptions(batch_size=1), count=4)
    assert plan.experts[0].labelled == 4
    assert 0 < plan.experts[0].images_per_second <= 40


def test_watched__counts_the_time_of_calls_side_by_side_once(make_expert, monkeypatch) -> None:
    watched = plan._Watched(make_expert())
    monkeypatch.setattr(plan.time, "perf_counter", iter([0.0, 1.0, 3.0, 6.0, 10.0, 11.0]).__next__)
    for change in (1, 1, -1, -1):  # from 0 to 3 and from 1 to 6
        watched._count(change)
    assert watched.seconds == 6
    for change in (1, -1):  # nobody was at work from 6 to 10
        watched._count(change)
    assert watched.seconds == 7


def test_plan__several_experts_in_one_pass(shards, make_expert) -> None:
    normals = make_expert(lambda x: np.tile([0.6, 0.0, 0.8], (4, 6, 1)), UnitVector(), "normals")
    options = LabelOptions(codec=("png-normal-rgb8",))
    plan = plan_labels(shards, [make_expert(), normals], options, count=4)
    assert [found.codec for found in plan.experts] == ["png-scalar-10", "png-normal-rgb8"]
    assert plan.total_bytes == pytest.approx(12 * sum(x.bytes_per_image for x in plan.experts))
    octahedral, rgb = plan.experts[1].codecs
    assert 0.2 < octahedral.error.worst < 1.36 and 0 < rgb.error.worst < 0.4


def test_plan__with_failures(make_shards, draw_picture, make_expert) -> None:
    shards = make_shards([b"broken", draw_picture(1, (8, 8)), draw_picture(2, (8, 8))])
    normals = make_expert(lambda image: np.tile([0.6, 0.0, 0.8], (4, 6, 1)), UnitVector())
    plan = plan_labels(shards, [normals], count=50)
    assert (plan.sampled, plan.experts[0].labelled) == (3, 2)

    def fail(image: np.ndarray) -> np.ndarray:
        raise RuntimeError("no such device")

    with pytest.raises(ValueError, match="no such device"):
        plan_labels(make_shards([draw_picture(1, (8, 8))]), [make_expert(fail)])
    with pytest.raises(ValueError, match="at least one"):
        plan_labels(shards, [normals], count=0)
