"""A batch size that counts the samples of each rank."""

from __future__ import annotations

import pytest

from cliptex.training.config import load_config, of_all_ranks
from cliptex.training.dryrun import plan_memory
from cliptex.training.loop import train
from cliptex.training.runfolder import check_run
from cliptex.training.setup import open_data


def test_a_batch_per_rank_grows_with_the_ranks(configure) -> None:
    config = configure(batch_size=3, batch_per="rank")
    four = of_all_ranks(config, 4)
    assert (four.batch_size, four.batch_per) == (12, "global")
    assert of_all_ranks(four, 4) == four
    _, sampler, _, _ = open_data(four)
    assert len(sampler.batch_at(0).share(3, 4).indices) == 3
    assert of_all_ranks(configure(batch_size=3), 4).batch_size == 3


def test_the_run_records_the_global_batch_and_goes_on_with_no_other(configure, tmp_path) -> None:
    config = configure(batch_size=4, batch_per="rank", steps=3, warmup_steps=0)
    train(config, tmp_path)  # of one rank
    saved = load_config(tmp_path / "config.yaml")
    assert (saved.batch_size, saved.batch_per) == (4, "global")
    with pytest.raises(ValueError, match=r"another configuration \(batch_size differ\)"):
        check_run(of_all_ranks(config, 2), tmp_path)


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({"batch_size": 33}, 1, "`batch_size`: 33 makes a batch of 33 at 32 x 32"),
        ({"batch_size": 20}, 1, "`batch_size`: 20 makes a batch of 80 at 16 x 16"),
        ({"batch_size": 17, "batch_per": "rank"}, 2, "`batch_size`: 17 for each of 2 ranks makes"),
        ({"batch_size": 12, "accumulate": 4}, 4, "`batch_size`: 12 makes a batch of 3 at 64 x 64"),
    ],
)
def test_an_error_names_the_batch_that_was_given(configure, changes, ranks, message) -> None:
    sizes = {20: ((32, 32), (16, 16)), 12: ((32, 32), (64, 64))}
    config = configure(**changes, resolution=sizes.get(changes["batch_size"], ((32, 32),)))
    with pytest.raises(ValueError, match=message):
        open_data(config, ranks=ranks)


def test_the_memory_plan_keeps_the_batch_of_a_rank(configure, model) -> None:
    whole, each = (
        plan_memory(model.config, configure(batch_size=8, batch_per=per), {}, (1, 4))
        for per in ("global", "rank")
    )
    assert [plan.batch for plan in whole if plan.parallel == "ddp"] == [8, 2]
    assert [plan.batch for plan in each if plan.parallel == "ddp"] == [8, 8]
