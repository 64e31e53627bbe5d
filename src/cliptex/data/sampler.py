"""Which samples, at which resolution, at a given step: a pure function of (seed, step).

No state is kept or saved: a resumed run asks for the next step and gets what an undisturbed run
would have got. Epochs are cut from one endless stream, each epoch a permutation of all samples
drawn from (seed, epoch), so every sample is seen exactly once per epoch, and a batch may
reach from the end of one epoch into the next.

Variable resolutions: every size (h, w) gets a batch of max(1, int(base_h * base_w * B / (h w)))
samples, so that the pixels per step stay about the same (the authors' variable batch sampler).
They draw a size independently per step; here the sizes come in cycles, each a permutation of
all sizes drawn from (seed, cycle). A cycle thereby holds a constant number of samples, which
makes the global position of every sample a closed formula of the step, and every resolution is
used equally often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Size = tuple[int, int]  # (height, width) in pixels

_EPOCH, _CYCLE = 1, 2  # purposes of the generators


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


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Batches over `total` samples.

    batch_size: samples per step at the base size, which is `sizes[0]`.
    sizes: the resolutions used, (height, width) each.

    Raises ValueError where there are no samples or a batch exceeds one epoch.
    """

    total: int
    batch_size: int
    seed: int
    sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        if self.total < 1:
            raise ValueError("there are no samples to draw batches from")
        if not self.sizes:
            raise ValueError("sizes: name at least one (height, width)")
        if (largest := max(self.batch_sizes)) > self.total:
            raise ValueError(
                f"batch_size: a batch of {largest} samples is larger than the data set of "
                f"{self.total}; choose a batch_size (at size {self.sizes[0]}) that fits"
            )

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Samples per step for each of `sizes`."""
        pixels = self.sizes[0][0] * self.sizes[0][1] * self.batch_size
        return tuple(max(1, pixels // (h * w)) for h, w in self.sizes)

    @property
    def samples_per_cycle(self) -> int:
        """Samples in one cycle of len(sizes) steps."""
        return sum(self.batch_sizes)

    def steps(self, epochs: float) -> int:
        """Steps needed for `epochs` epochs, on average over the sizes, rounded up."""
        mean_batch = self.samples_per_cycle / len(self.sizes)
        return max(1, math.ceil(epochs * self.total / mean_batch))

    def batch_at(self, step: int) -> Step:
        """The samples of `step` (0, 1, ...), the same however often and whenever it is asked."""
        cycle, within = divmod(step, len(self.sizes))
        order = _permutation(self.seed, _CYCLE, cycle, len(self.sizes))
        batches = self.batch_sizes
        first = cycle * self.samples_per_cycle + sum(batches[i] for i in order[:within])
        count = batches[order[within]]
        indices = tuple(self._sample_at(position) for position in range(first, first + count))
        return Step(size=self.sizes[order[within]], indices=indices, first=first)

    def _sample_at(self, position: int) -> int:
        epoch, place = divmod(position, self.total)
        return int(_permutation(self.seed, _EPOCH, epoch, self.total)[place])


@lru_cache(maxsize=4)  # two epochs meet in a batch, beside the cycle of sizes
def _permutation(seed: int, purpose: int, number: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, purpose, number]).permutation(length)
