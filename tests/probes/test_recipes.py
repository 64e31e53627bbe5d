"""Values of Table 8 (Salehi et al. 2023, appendix A), column by column."""

import pytest

from cliptex.models.config import HEAD_NAMES
from cliptex.probes.config import RelativeSchedule, Schedule
from cliptex.probes.recipes import paper

# epochs, scheduler, warm-up steps, warm-up init, maximum, minimum, batch size
COLUMNS = {
    ("segmentation", "linear"): (50, "cosine", 500, 1e-6, 3e-5, 3e-6, 32),
    ("segmentation", "deeplabv3"): (50, "cosine", 500, 1e-6, 3e-5, 3e-6, 32),
    ("segmentation", "pspnet"): (50, "cosine", 500, 1e-6, 3e-5, 3e-6, 32),
    ("depth", "linear"): (50, "cosine", 1000, 1e-6, 1e-4, 1e-6, 16),
    ("depth", "deeplabv3"): (50, "cosine", 1000, 1e-6, 1e-4, 1e-6, 16),
    ("depth", "pspnet"): (50, "cosine", 1000, 1e-6, 1e-4, 1e-6, 16),
    ("normals", "linear"): (50, "cosine", 1000, 1e-6, 1e-5, 1e-6, 16),
    ("normals", "deeplabv3"): (50, "cosine", 1000, 1e-6, 1e-5, 1e-6, 16),
    ("normals", "pspnet"): (50, "cosine", 1000, 1e-6, 1e-5, 1e-6, 16),
    ("classification", "linear"): (40, "cosine", 1000, 1e-6, 3e-5, 1e-6, 128),
}


@pytest.mark.parametrize("column", COLUMNS, ids="-".join)
def test_column(column):
    task, head = column
    config = paper(task, (head,))
    plan = config.schedule
    assert COLUMNS[column] == (
        config.epochs,
        plan.kind,
        plan.warmup_steps,
        plan.warmup_init_lr,
        plan.lr,
        plan.min_lr,
        config.batch_size,
    )
    assert config.heads == (head,) and config.rates == (plan.lr,)
    assert config.dropout == 0.1 and config.width == 512


def test_group_of_a_task_has_all_its_heads():
    assert paper("depth").heads == HEAD_NAMES
    assert paper("classification").heads == ("linear",)
    assert paper("classification").resolution == 224 and paper("normals").resolution == 512


def test_schedule__cosine_by_hand():
    plan = Schedule(lr=3e-5, warmup_steps=500, warmup_init_lr=1e-6, min_lr=3e-6)
    rate = [3e-5 * plan.factor(step, 1501, 30) for step in (0, 250, 500, 1000, 1500)]
    assert rate == pytest.approx([1e-6, 1.55e-5, 3e-5, 1.65e-5, 3e-6], rel=1e-12)


def test_schedule__multi_step_drops_at_epochs():
    plan = Schedule(kind="multi-step", lr=3e-4, milestones=(22, 24), gamma=0.1)
    found = [plan.factor(10 * epoch + 9, 250, 10) for epoch in (21, 22, 23, 24)]
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])
    assert plan.factor(220, 250, 10) == pytest.approx(0.1) and plan.factor(219, 250, 10) == 1


def test_schedule__faults():
    with pytest.raises(ValueError, match="milestones"):
        Schedule(kind="multi-step", lr=1)
    with pytest.raises(ValueError, match="500 steps of warm-up do not fit into 500"):
        Schedule(lr=1, warmup_steps=500).check(500)
    Schedule(lr=1, warmup_steps=500).check(501)


def test_relative_schedule__warms_up_over_a_share_and_never_rests():
    plan = RelativeSchedule(warmup=0.2, min_factor=0.1)
    factors = [plan.factor(step, 10, 1) for step in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert factors == sorted(factors[:3]) + sorted(factors[3:], reverse=True)
    assert plan.factor(10, 10, 1) == pytest.approx(0.1)
