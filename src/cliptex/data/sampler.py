"""Which samples, at which resolution, at a given step: a pure function of (seed, step).

    sampler.batch_at(step) -> Step(size, indices, first)     the global batch of a step
    step.share(rank, world) -> Step                          one rank's contiguous part of it

No state is kept or saved: a resumed run asks for the next step and gets what an undisturbed run
would have got, on any number of ranks, since the global batches do not know how many there are.

Order: epochs are cut from one endless stream, each epoch holds every sample once, and a batch may
reach from the end of one epoch into the next. Within an epoch the shards follow in random order,
and every window of `window` neighbours in that order is permuted. So reads stay within the few
shards of a window, and any place of the stream is found without what comes before it. Data that
fit into one window are permuted as a whole.

Variable resolutions: every size (h, w) gets a batch of base_h * base_w * B / (h w) samples, so
that the pixels per step stay about the same (the authors' variable batch sampler). They draw a
size independently per step; here the sizes come in cycles, each a permutation of all sizes drawn
from (seed, cycle). A cycle thereby holds a constant number of samples, which makes the global
position of every sample a closed formula of the step, and every resolution is used equally often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Size = tuple[int, int]  # (height, width) in pixels

WINDOW = 65_536  # about seven shards of 10,000: mixes well, and their files stay open
_EPOCH, _CYCLE, _SHARDS, _OFFSET = 1, 2, 4, 5  # purposes of the generators; 3 is the loop's


def batch_sizes(batch_size: int, sizes: Sequence[Size]) -> tuple[int, ...]:
    """Samples per step at each of `sizes`, for `batch_size` at the first, which is the base.

    Rounding to hundredths first is the authors'.
    """
    pixels = sizes[0][0] * sizes[0][1] * batch_size
    return tuple(max(1, int(round(pixels / (h * w), 2))) for h, w in sizes)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one training step reads: a size, sample indices and their global positions."""

    size: Size
    indices: tuple[int, ...]
    first: int  # global position of the first sample; the others follow one by one

    @property
    def positions(self) -> range:
        """Global positions, counted over all epochs, in the order of `indices`."""
        return range(self.first, self.first + len(self.indices))

    def share(self, rank: int, world: int) -> Step:
        """The part of rank `rank` of `world`: contiguous, len // world samples or one more.

        The first len % world ranks take the extra ones; the shares of all ranks in order are the
        step itself. Raises ValueError where a rank would go without a sample.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world}")
        if world > len(self.indices):
            raise ValueError(
                f"batch_size: a global batch of {len(self.indices)} samples (at size {self.size}) "
                f"is too small for {world} ranks; choose a larger batch_size"
            )
        least, extra = divmod(len(self.indices), world)
        start = rank * least + min(rank, extra)
        stop = start + least + (rank < extra)
        return Step(size=self.size, indices=self.indices[start:stop], first=self.first + start)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Global batches over `total` samples.

    batch_size: samples per step at the base size, which is `sizes[0]`, over all ranks.
    sizes: the resolutions used, (height, width) each.
    shards: numbers of samples of the shards in the order of the samples; () is one shard.
    window: samples that are shuffled together.

    Raises ValueError where there are no samples or a batch exceeds one epoch.
    """

    total: int
    batch_size: int
    seed: int
    sizes: tuple[Size, ...]
    shards: tuple[int, ...] = ()
    window: int = WINDOW

    def __post_init__(self) -> None:
        if self.total < 1:
            raise ValueError("there are no samples to draw batches from")
        if not self.sizes:
            raise ValueError("sizes: name at least one (height, width)")
        if self.window < 1:
            raise ValueError(f"window: {self.window} samples cannot be shuffled; give at least 1")
        if self.shards and (sum(self.shards) != self.total or min(self.shards) < 0):
            raise ValueError(f"shards: sizes {self.shards} do not add up to {self.total} samples")
        if (largest := max(self.batch_sizes)) > self.total:
            raise ValueError(
                f"batch_size: a batch of {largest} samples is larger than the data set of "
                f"{self.total}; choose a batch_size (at size {self.sizes[0]}) that fits"
            )

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Samples per step for each of `sizes`."""
        return batch_sizes(self.batch_size, self.sizes)

    @property
    def samples_per_cycle(self) -> int:
        """Samples in one cycle of len(sizes) steps."""
        return sum(self.batch_sizes)

    def steps(self, epochs: float) -> int:
        """The least number of steps that reads `epochs` epochs."""
        return self.steps_for(math.ceil(epochs * self.total - 1e-6))

    def steps_for(self, samples: int) -> int:
        """The least number of steps (at least 1) that reads `samples` samples."""
        cycles, rest = divmod(samples, self.samples_per_cycle)
        read = np.cumsum(np.take(self.batch_sizes, self._size_order(cycles)))
        within = int(np.searchsorted(read, rest)) + 1 if rest else 0
        return max(1, cycles * len(self.sizes) + within)

    def first_of(self, step: int) -> int:
        """Global position of the first sample of `step`: the samples read by the steps before."""
        cycle, within = divmod(step, len(self.sizes))
        before = self._size_order(cycle)[:within]
        return cycle * self.samples_per_cycle + sum(self.batch_sizes[i] for i in before)

    def batch_at(self, step: int) -> Step:
        """The samples of `step` (0, 1, ...), the same however often and whenever it is asked."""
        cycle, within = divmod(step, len(self.sizes))
        drawn = self._size_order(cycle)[within]
        first = self.first_of(step)
        indices = self._stream(first, self.batch_sizes[drawn])
        return Step(size=self.sizes[drawn], indices=tuple(indices.tolist()), first=first)

    def _size_order(self, cycle: int) -> np.ndarray:
        return _permutation(self.seed, _CYCLE, cycle, 0, len(self.sizes))

    def _stream(self, first: int, count: int) -> np.ndarray:
        """The samples at `count` positions of the endless stream; (count,) int64."""
        found: list[np.ndarray] = []
        while count:
            epoch, place = divmod(first, self.total)
            part = self._rest_of_window(epoch, place, count)
            found.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(found)

    def _rest_of_window(self, epoch: int, place: int, count: int) -> np.ndarray:
        """Up to `count` samples from `place` of an epoch on, within its window."""
        if self.total <= self.window:
            return _permutation(self.seed, _EPOCH, epoch, 0, self.total)[place : place + count]
        # Windows begin elsewhere in every epoch: no sample always stands at the edge of one.
        offset = _offset(self.seed, epoch, self.window)
        number = (place + offset) // self.window
        start = max(0, number * self.window - offset)
        stop = min(self.total, (number + 1) * self.window - offset)
        order = _permutation(self.seed, _EPOCH, epoch, number, stop - start)
        return self._in_shuffled_shards(epoch, start + order[place - start : place - start + count])

    def _in_shuffled_shards(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Samples at `places` of the sequence of shards in the order of `epoch`."""
        sizes = np.asarray(self.shards or (self.total,))
        order = _permutation(self.seed, _SHARDS, epoch, 0, len(sizes))
        ends = np.cumsum(sizes[order])
        ranks = np.searchsorted(ends, places, side="right")
        starts = np.cumsum(sizes) - sizes
        return starts[order[ranks]] + places - (ends[ranks] - sizes[order[ranks]])


@dataclass(frozen=True, kw_only=True)
class Around:
    """A range of square resolutions.

    Args:
        base: side in pixels at which `batch_size` holds.
        low: smallest side in pixels.
        high: largest side in pixels.
        count: number of sides between these, both included.
        divisor: sides are multiples of it; a multiple of the image tower's stride, such as 14 or
            28 for a patch of 14.
    """

    base: int = 512
    low: int = 366
    high: int = 731
    count: int = 5
    divisor: int = 32

    def sizes(self) -> tuple[Size, ...]:
        """(height, width) each, the base first; ValueError where the range is none."""
        if not 0 < self.low <= self.high or min(self.count, self.base, self.divisor) < 1:
            raise ValueError(f"around: need 0 < low <= high, and the rest at least 1, not {self}")
        return sizes_around(self.base, self.low, self.high, self.count, divisor=self.divisor)


def sizes_around(
    base: int, low: int, high: int, count: int, *, divisor: int = 32
) -> tuple[Size, ...]:
    """Square sizes: `base`, then `count` sides evenly from `low` to `high`, made divisible.

    The authors' rule: each side is rounded to the nearest multiple of `divisor` (halves up), or to
    the next one where that would take away more than a tenth; sides met twice count once.
    """
    sides = [base, *np.linspace(low, high, count).tolist()]
    return tuple(dict.fromkeys((side, side) for side in (_divisible(s, divisor) for s in sides)))


def _divisible(value: float, divisor: int) -> int:
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


@lru_cache(maxsize=12)  # windows and epochs that meet in the batches ahead, shards, cycles
def _permutation(seed: int, purpose: int, number: int, part: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, purpose, number, part]).permutation(length)


@lru_cache(maxsize=4)
def _offset(seed: int, epoch: int, window: int) -> int:
    return int(np.random.default_rng([seed, _OFFSET, epoch]).integers(window))
