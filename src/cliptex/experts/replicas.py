"""One expert on several devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

import numpy as np

from cliptex.experts.protocol import Expert, ExpertSpec, Prediction, concurrency_of


class ReplicatedExpert:
    """Copies of one expert, one a device; each call of `predict` takes one that is free.

    Which copy answers depends on timing, so on devices of different make a stored value may differ
    from run to run by float rounding; on devices of one make it does not. Raises ValueError
    without a copy, or where the copies are not the same expert.
    """

    def __init__(self, replicas: Sequence[Expert]) -> None:
        if not replicas or any(replica.spec != replicas[0].spec for replica in replicas):
            raise ValueError("replicas must be one or more copies of one expert")
        self.spec: ExpertSpec = replicas[0].spec
        self.concurrency = sum(concurrency_of(replica) for replica in replicas)
        self._free: SimpleQueue[Expert] = SimpleQueue()
        most = max(concurrency_of(replica) for replica in replicas)
        for turn in range(most):  # every replica once before any is taken twice
            for replica in replicas:
                if turn < concurrency_of(replica):
                    self._free.put(replica)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """As the replicas' `predict`; waits where all are busy."""
        replica = self._free.get()
        try:
            return replica.predict(images)
        finally:
            self._free.put(replica)
