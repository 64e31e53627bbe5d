"""What a dense probe learns and is scored by, for each kind of label (paper section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.datasets.protocol import DenseDataset
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.losses import nll_angmf, scale_shift_invariant
from cliptex.metrics import depth_mask
from cliptex.probes.fit import Loss
from cliptex.probes.items import dense_item
from cliptex.probes.protocol import LASINGER, WHOLE, Protocol
from cliptex.probes.scorers import DepthScorer, NormalsScorer, SegmentationScorer
from cliptex.probes.scores import Scorer


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """What a dense probe needs to know about its kind of label.

    `convert` turns a ground truth into the training target, a label of kind `label`; `loss` takes
    raw (M, K, g, g) and targets (M, g, g, ...). `scorer` makes the scorer of a protocol; learning
    rates are chosen by the first of `protocols`.
    """

    name: str
    channels: int
    dtype: torch.dtype
    target_shape: tuple[int, ...]  # behind (N, r, r)
    label: Kind
    convert: Callable[[np.ndarray], np.ndarray]
    loss: Loss
    loss_name: str
    scorer: Callable[[Protocol], Scorer]
    protocols: tuple[Protocol, ...]
    bounds: tuple[float, float] | None = None  # of depth, outside which nothing is learnt

    def require_targets(self, train: DenseDataset) -> None:
        """ValueError where no depth of `train` can be learnt from; most sets show one at once."""
        if self.bounds is None:
            return
        for index in range(len(train)):
            if self.label.valid(self.convert(dense_item(train, index).target)).any():
                return
        raise ValueError(
            f"no pixel of the training set {train.name} lies within depth_range {self.bounds}: "
            "depths are in metres, and the configuration's depth_range bounds them"
        )

    def prepare(self, target: np.ndarray, side: int) -> np.ndarray:
        """The training target of a whole picture, squashed to a square."""
        return self.label.resize(self.convert(target), (side, side))


class Rules(Interface):
    """What of a probe's configuration decides how predictions are scored, and depth is learnt."""

    @property
    def protocols(self) -> tuple[Protocol, ...]: ...

    @property
    def depth_range(self) -> tuple[float, float]: ...

    @property
    def things(self) -> Sequence[str] | None: ...


def probe_task(kind: Kind, rules: Rules) -> ProbeTask:
    """Cross-entropy, scale-shift-invariant in disparity, or NLL-AngMF (paper section 4.3)."""
    if isinstance(kind, ClassMap):
        return ProbeTask(
            name="segmentation",
            channels=len(kind.classes),
            dtype=torch.uint8 if kind.ignore == 255 else torch.int32,
            target_shape=(),
            label=kind,
            convert=kind.check,
            loss=lambda out, y: cross_entropy(out, y, kind.ignore),
            loss_name="cross-entropy",
            scorer=lambda protocol: SegmentationScorer(kind, protocol, rules.things),
            protocols=rules.protocols or (WHOLE,),
        )
    if isinstance(kind, ScalarField):
        if kind.unit != "m":
            raise ValueError(f"a depth probe needs ground truth in metres, not {kind.unit!r}")
        return ProbeTask(
            name="depth",
            channels=1,
            dtype=torch.float32,
            target_shape=(),
            label=ScalarField(unit="1/m"),
            convert=lambda target: disparity_of(target, rules.depth_range),
            loss=depth_loss,
            loss_name="scale-shift-invariant L1 in disparity",
            scorer=DepthScorer,
            protocols=rules.protocols or (LASINGER,),
            bounds=rules.depth_range,
        )
    assert isinstance(kind, UnitVector)
    return ProbeTask(
        name="normals",
        channels=4,
        dtype=torch.float16,
        target_shape=(3,),
        label=kind,
        convert=np.asarray,
        loss=normals_loss,
        loss_name="NLL-AngMF",
        scorer=NormalsScorer,
        protocols=rules.protocols or (WHOLE,),
    )


def cross_entropy(out: Tensor, y: Tensor, ignore: int) -> Tensor:
    """Mean cross-entropy over valid pixels; 0 where there is none."""
    labels = y.long()
    total = F.cross_entropy(out, labels, ignore_index=ignore, reduction="sum")
    return total / (labels != ignore).sum().clamp(min=1)


def depth_loss(out: Tensor, y: Tensor) -> Tensor:
    """Scale-shift-invariant L1 over the drawn pixels of (M, 1, g, g) and (M, g, g) disparities."""
    valid = torch.isfinite(y)
    return scale_shift_invariant(out[:, 0], torch.where(valid, y, 0.0), valid)


def normals_loss(out: Tensor, y: Tensor) -> Tensor:
    """NLL-AngMF of raw (M, 4, g, g) and unit normals (M, g, g, 3), zero where invalid."""
    target = y.float().permute(0, 3, 1, 2)  # (M, 3, g, g)
    return nll_angmf(out, target, (target != 0).any(1))


def disparity_of(depth: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """1 / depth in 1/m, (H, W) float32; NaN outside `bounds`."""
    mask = depth_mask(depth, bounds)
    return np.divide(1.0, depth, out=np.full(depth.shape, np.nan, np.float32), where=mask)
