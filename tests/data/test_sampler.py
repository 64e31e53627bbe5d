from __future__ import annotations

import itertools

import numpy as np
import pytest

from cliptex.data.sampler import Around, Sampler, Step, sizes_around


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


def test_one_size_beside_the_base_is_enough() -> None:
    assert Around(base=64, low=64, high=64, count=1, divisor=1).sizes() == ((64, 64),)
    with pytest.raises(ValueError, match="at least 1"):
        Around(base=64, low=64, high=64, count=0).sizes()


def test_the_authors_clip_sizes_give_their_batches() -> None:
    # corenet, CLIP: base 224, 160 to 320 in five, B0 = 256.
    sizes = sizes_around(224, 160, 320, 5)
    assert [side for side, _ in sizes] == [224, 160, 192, 256, 288, 320]
    authors = sampler(total=10_000, batch_size=256, sizes=sizes)
    assert authors.batch_sizes == (256, 501, 348, 196, 154, 125)


def test_sizes_around_512_and_their_batches_by_hand() -> None:
    # 366, 457.25, 548.5, 639.75, 731 to the nearest multiples of 32; 512² · 32 = 8388608 pixels:
    # / 352² = 67.7, / 448² = 41.8, / 544² = 28.3, / 640² = 20.48, / 736² = 15.5.
    sizes = sizes_around(512, 366, 731, 5)
    assert [side for side, _ in sizes] == [512, 352, 448, 544, 640, 736]
    assert sampler(total=99, batch_size=32, sizes=sizes).batch_sizes == (32, 67, 41, 28, 20, 15)
    # The library's only public range with base 512: 25 sides of 256 to 512 leave nine.
    sides = [side for side, _ in sizes_around(512, 256, 512, 25)]
    assert sides == [512, 256, 288, 320, 352, 384, 416, 448, 480]
    assert sizes_around(512, 256, 512, 25)[1] == (256, 256)
    assert sampler(total=999, batch_size=64, sizes=((512, 512), (256, 256))).batch_sizes[1] == 256


def test_a_side_never_loses_more_than_a_tenth() -> None:
    # 47 is nearest to 32, which is less than 42.3: the next multiple is taken.
    assert sizes_around(47, 47, 47, 1) == ((64, 64),)
    assert sizes_around(10, 10, 10, 1) == ((32, 32),)  # never 0


def test_batches_are_rounded_to_hundredths_before_they_are_cut() -> None:
    # 4 · 64² / (90 · 91) = 2.0005; 2047 · 64 / (32 · 1024) = 3.998, which rounds to 4.00.
    assert sampler(total=99, sizes=((64, 64), (90, 91))).batch_sizes == (4, 2)
    nearly = sampler(total=3000, batch_size=2047, sizes=((8, 8), (32, 1024)))
    assert nearly.batch_sizes == (2047, 4)


def test_sizes_take_turns_in_random_order() -> None:
    sizes = tuple((s, s) for s in (32, 48, 64, 80))
    varied = sampler(total=100, sizes=sizes)
    cycles = [tuple(varied.batch_at(4 * c + i).size for i in range(4)) for c in range(8)]
    assert all(sorted(cycle) == sorted(sizes) for cycle in cycles)
    assert len(set(cycles)) > 1


def test_length_of_epochs() -> None:
    assert sampler().steps(1) == 3  # 10 samples in batches of 4
    assert sampler().steps(2) == 5
    assert sampler().steps(0.4) == sampler().steps_for(4) == 1
    assert sampler().steps_for(5) == 2


@pytest.mark.parametrize("samples", [1, 3, 22, 23, 60, 97, 400])
def test_length_in_samples_is_the_first_step_that_reaches_them(samples: int) -> None:
    varied = sampler(total=50, sizes=((64, 64), (32, 32), (96, 64)))
    steps = varied.steps_for(samples)
    assert varied.first_of(steps - 1) < samples <= varied.first_of(steps)


def sharded(**changes) -> Sampler:
    """1000 samples in 25 shards, shuffled in windows of 100."""
    shards = tuple(20 + 4 * (i % 11) for i in range(25))
    rest = 1000 - sum(shards[:-1])
    return sampler(**{"total": 1000, "window": 100, "shards": (*shards[:-1], rest)} | changes)


def epochs_of(drawn: Sampler, count: int) -> list[list[int]]:
    stream: list[int] = []
    step = 0
    while len(stream) < count * drawn.total:
        stream += drawn.batch_at(step).indices
        step += 1
    return [stream[i * drawn.total : (i + 1) * drawn.total] for i in range(count)]


@pytest.mark.parametrize("window", [1, 7, 100, 999, 1000, 5000])
def test_windows_and_shards_keep_every_sample(window: int) -> None:
    epochs = epochs_of(sharded(window=window, sizes=((64, 64), (96, 64), (32, 32))), 3)
    assert all(sorted(epoch) == list(range(1000)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_stretch_of_the_stream_reads_few_shards() -> None:
    drawn = sharded()
    ends = np.cumsum(drawn.shards)
    for epoch in epochs_of(drawn, 2):
        shards = np.searchsorted(ends, epoch, side="right")
        # 100 samples lie in two windows at most, 200 places of shards of 20 samples or more.
        met = [len(set(shards[i : i + 100].tolist())) for i in range(0, 900, 50)]
        assert max(met) <= 12
        # Samples of a shard are mixed with those of others, and shards are not in file order.
        assert (shards[1:] != shards[:-1]).mean() > 0.5
        assert list(dict.fromkeys(shards.tolist())) != sorted(set(shards.tolist()))


def test_without_window_the_shards_follow_one_another_in_random_order() -> None:
    drawn = sharded(window=1)
    for epoch in epochs_of(drawn, 2):
        shards = np.searchsorted(np.cumsum(drawn.shards), epoch, side="right")
        assert (shards[1:] != shards[:-1]).sum() == 24
        assert (np.diff(epoch)[shards[1:] == shards[:-1]] == 1).all()


def test_windows_begin_elsewhere_in_every_epoch() -> None:
    # One shard in windows of 100: with fixed borders, samples 0 to 99 would stay together.
    first = [{*epoch[:100]} for epoch in epochs_of(sharded(shards=()), 6)]
    assert sum(part != set(range(100)) for part in first) >= 5


def test_data_within_one_window_are_permuted_whatever_the_shards() -> None:
    one, other = sharded(window=1000), sharded(window=4000, shards=())
    assert [one.batch_at(s) for s in range(20)] == [other.batch_at(s) for s in range(20)]


def test_any_step_is_found_without_those_before() -> None:
    drawn = sharded(sizes=((64, 64), (96, 64), (32, 32)))
    forwards = {step: drawn.batch_at(step) for step in range(200)}
    again = sharded(sizes=((64, 64), (96, 64), (32, 32)))
    for step in (199, 3, 120, 0):
        assert again.batch_at(step) == forwards[step]
        assert again.first_of(step) == sum(len(forwards[s].indices) for s in range(step))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 8])
def test_shares_of_all_ranks_are_the_global_batch(world: int) -> None:
    drawn = sharded(batch_size=11)
    for step in range(5):
        whole = drawn.batch_at(step)
        shares = [whole.share(rank, world) for rank in range(world)]
        assert tuple(i for share in shares for i in share.indices) == whole.indices
        assert [p for share in shares for p in share.positions] == list(whole.positions)
        lengths = [len(share.indices) for share in shares]
        assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
        assert all(share.size == whole.size for share in shares)


def test_shares_by_hand_and_what_they_refuse() -> None:
    step = Step(size=(32, 32), indices=(7, 5, 3, 1, 9), first=20)
    assert step.share(0, 2) == Step(size=(32, 32), indices=(7, 5, 3), first=20)
    assert step.share(1, 2) == Step(size=(32, 32), indices=(1, 9), first=23)
    with pytest.raises(ValueError, match="too small for 6 ranks"):
        step.share(0, 6)
    with pytest.raises(ValueError, match="rank 2"):
        step.share(2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total": 0}, "no samples"),
        ({"total": 3}, "larger than the data set of 3"),
        ({"sizes": ((64, 64), (16, 16))}, "batch of 64"),
        ({"sizes": ()}, "at least one"),
        ({"window": 0}, "window"),
        ({"shards": (4, 5)}, "do not add up to 10"),
    ],
)
def test_refusals(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**changes)
