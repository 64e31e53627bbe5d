"""What a probe hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cliptex.labels.kinds import Kind
from cliptex.probes.config import ProbeConfig
from cliptex.probes.fit import Heads
from cliptex.probes.scores import save_rows_per_image
from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class ProbeOutcome:
    """Rows, per-image values and the trained head of one probe.

    `per_image` maps a metric (see `scores.row_key`) to (N, ...) values in the order of the test
    images, in the forms of `cliptex.per_image.save_per_image`.
    """

    results: list[Result]
    per_image: dict[str, np.ndarray]
    head: Heads
    config: ProbeConfig
    kind: Kind | None = None
    validation: dict[float, float] = field(default_factory=dict)  # learning rate -> score

    def value(self, metric: str) -> float:
        """The value of the first row with `metric`."""
        return next(row.value for row in self.results if row.metric == metric)

    def save_per_image(self, folder: Path) -> list[Path]:
        """One .npz per row that has per-image values."""
        return save_rows_per_image(folder, self.results, self.per_image)
