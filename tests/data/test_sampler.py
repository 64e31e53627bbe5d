from __future__ import annotations

import itertools

import pytest

from cliptex.data.sampler import Sampler


def sampler(**changes) -> Sampler:
    return Sampler(**{"total": 10, "batch_size": 4, "seed": 3, "sizes": ((64, 64),)} | changes)


def test_every_epoch_holds_each_sample_once() -> None:
    stream = list(
        itertools.chain.from_iterable(sampler().batch_at(step).indices for step in range(10))
    )
    epochs = [stream[0:10], stream[10:20], stream[20:30], stream[30:40]]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in another order


def test_every_epoch_holds_each_sample_once_at_variable_sizes() -> None:
    varied = sampler(total=50, sizes=((64, 64), (32, 32), (96, 64)))
    stream = [i for step in range(40) for i in varied.batch_at(step).indices]
    for epoch in range(len(stream) // 50):
        assert sorted(stream[epoch * 50 : (epoch + 1) * 50]) == list(range(50))


def test_batches_depend_on_seed_and_step_alone() -> None:
    forwards = [sampler().batch_at(step) for step in range(20)]
    one = sampler()
    backwards = [one.batch_at(step) for step in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [sampler(seed=4).batch_at(step) for step in range(20)]


def test_positions_count_samples_over_all_steps() -> None:
    varied = sampler(total=50, sizes=((64, 64), (32, 32), (96, 64)))
    positions = [p for step in range(30) for p in varied.batch_at(step).positions]
    assert positions == list(range(len(positions)))


def test_batches_of_other_sizes_keep_the_pixels_per_step() -> None:
    # 64 * 64 * 4 = 16384 pixels: 16 of 32x32, int(2.67) = 2 of 96x64, at least one of 256x256.
    varied = sampler(total=50, sizes=((64, 64), (32, 32), (96, 64), (256, 256)))
    assert varied.batch_sizes == (4, 16, 2, 1)
    drawn = {varied.batch_at(step).size: len(varied.batch_at(step).indices) for step in range(4)}
    assert drawn == {(64, 64): 4, (32, 32): 16, (96, 64): 2, (256, 256): 1}


def test_the_authors_clip_sizes_give_their_batches() -> None:
    # corenet, CLIP: base 224, B0 = 256.
    sides = (224, 160, 192, 256, 288, 320)
    authors = sampler(total=10_000, batch_size=256, sizes=tuple((s, s) for s in sides))
    assert authors.batch_sizes == (256, 501, 348, 196, 154, 125)


def test_sizes_take_turns_in_random_order() -> None:
    sizes = tuple((s, s) for s in (32, 48, 64, 80))
    varied = sampler(total=100, sizes=sizes)
    cycles = [tuple(varied.batch_at(4 * c + i).size for i in range(4)) for c in range(8)]
    assert all(sorted(cycle) == sorted(sizes) for cycle in cycles)
    assert len(set(cycles)) > 1


def test_length_of_epochs() -> None:
    assert sampler().steps(1) == 3  # 10 samples in batches of 4
    assert sampler().steps(2) == 5
    assert sampler(total=50, sizes=((64, 64), (32, 32))).steps(1) == 5  # 10 a step on average


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": 0}, "no samples"),
        ({"total": 3}, "larger than the data set of 3"),
        ({"sizes": ((64, 64), (16, 16))}, "batch of 64"),
        ({"sizes": ()}, "at least one"),
    ],
)
def test_refusals(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**changes)
