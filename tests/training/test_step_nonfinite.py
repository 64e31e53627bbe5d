from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.training import loop
from cliptex.training.loop import train
from cliptex.training.setup import prepare


def named(error: pytest.ExceptionInfo[ValueError]) -> list[str]:
    """The samples in the message of a run that stopped."""
    return str(error.value).split("} on ")[1].split("; check these")[0].split(", ")


@pytest.mark.parametrize("batch_size", [8, 23])
def test_hopeless_runs_stop_and_name_the_samples(
    batch_size: int, configure, tmp_path: Path
) -> None:
    config = configure(lr=1e30, warmup_steps=0, bad_steps=2, steps=10, batch_size=batch_size)
    with pytest.raises(ValueError, match="2 steps in a row") as error:
        train(config, tmp_path)
    run = prepare(config)  # the second step is the first with broken weights: all are to blame
    batch = run.dataset.batch(run.sampler, 2)
    first, rest = list(batch.names[:20]), batch_size - 20
    if rest > 0:
        first[-1] += f" and {rest} more"
    assert named(error) == first


@pytest.mark.parametrize("accumulate", [1, 2])
def test_samples_without_a_finite_loss_are_named(
    accumulate: int, configure, tmp_path: Path, monkeypatch
) -> None:
    real = loop.load_batches

    def poisoned(*arguments, **options):
        for batch in real(*arguments, **options):
            batch.targets["depth"].target[[2, 5]] = float("nan")
            batch.targets["depth"].valid[[2, 5]] = True
            batch.targets["depth"].present[[2, 5]] = True
            yield batch

    monkeypatch.setattr(loop, "load_batches", poisoned)
    config = configure("depth", "normals", bad_steps=1, accumulate=accumulate)
    with pytest.raises(ValueError, match="1 steps in a row") as error:
        train(config, tmp_path)
    names = prepare(config).dataset.batch(prepare(config).sampler, 0).names
    assert named(error) == [names[2], names[5]]
