"""Accuracy of classes and recall of retrieval, in percent; ties count by their expectation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.means import mean_of_present, percent_of
from cliptex.per_image import OF_CLASSES

UNRANKED = np.iinfo(np.int64).max
"""`better` of a query whose similarities say nothing: beyond the recall of every gallery."""
RULE_TIES = "expected hits over random orders of what ties"
MEAN_PER_CLASS = "mean_per_class"
RULE_PER_CLASS = "top-1 per class, mean over the classes of the test set"


class Ranks(NamedTuple):
    """What stands before, and beside, the best right answer of each query; (Q,) int64 each.

    better: wrong answers that score strictly higher, `UNRANKED` where scores say nothing.
    tied: wrong answers with the same score.
    own: right answers with that score, at least 1.
    """

    better: NDArray[np.int64]
    tied: NDArray[np.int64]
    own: NDArray[np.int64]

    @property
    def tied_queries(self) -> int:
        """Queries with a wrong answer that scores as the best right one."""
        return int((self.tied > 0).sum())


def expected_hits(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """Probability that a right answer is among the `k` first, (Q,) in [0, 1].

    Ties are in random order: j = k - better places are left for tied + own answers, of which
    none is right with probability C(tied, j) / C(tied + own, j). One right answer (own = 1) is
    found with clip(j / (tied + 1), 0, 1). Without ties the values are exactly 0 and 1.
    """
    left = k - np.minimum(ranks.better, k)  # j
    missed = np.ones(len(left))
    for drawn in range(int(left.max(initial=0))):
        wrong = np.maximum(ranks.tied - drawn, 0)  # once all are drawn, the next one is right
        missed = np.where(drawn < left, missed * (wrong / (wrong + ranks.own)), missed)
    return 1 - missed


def label_ranks(scores: NDArray, labels: NDArray) -> Ranks:
    """Where each row's label stands among `scores` (N, C), `labels` (N,).

    A row with a NaN among its scores, or without a finite one for its label, is `UNRANKED`.
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    usable = _comparable(scores, own)
    better, tied = (scores > own).sum(1), (scores == own).sum(1) - 1
    return Ranks(np.where(usable, better, UNRANKED), np.where(usable, tied, 0), np.ones_like(tied))


def topk_hits(scores: NDArray, labels: NDArray, k: int = 1) -> NDArray[np.float64]:
    """Expected share of each row's label among its `k` best scores, (N,) in [0, 1].

    See `label_ranks` and `expected_hits`: constant scores earn what guessing does.
    """
    return expected_hits(label_ranks(scores, labels), k)


def _comparable(scores: NDArray, own: NDArray) -> NDArray[np.bool_]:
    """Rows of `scores` (N, C) that rank their `own` (N, 1): NaN would be below everything."""
    return np.isfinite(own[:, 0]) & ~np.isnan(scores).any(1)


def topk(scores: NDArray, labels: NDArray, k: int = 1) -> float:
    """Percentage of rows whose label is among the `k` best scores."""
    return 100 * float(topk_hits(scores, labels, k).mean())


def mean_per_class(hits: NDArray, labels: NDArray, classes: int) -> float:
    """Mean over classes, in percent, of each class's share of `hits` (N,), as `labels` (N,) say.

    Classes without an image are left out; NaN without any image.
    """
    count = np.bincount(labels, minlength=classes)  # (C,)
    right = np.bincount(labels, weights=hits, minlength=classes)
    return float(mean_of_present(percent_of(right, count)))


def best_ranks(similarity: NDArray, query_ids: NDArray, gallery_ids: NDArray) -> Ranks:
    """Where each query's best own gallery item stands.

    `similarity` (Q, G); an item is a query's own where the ids agree. A query with a NaN among
    its similarities, or without a finite one to an own item, is `UNRANKED`. A query without an own
    item raises ValueError.
    """
    own = query_ids[:, None] == gallery_ids[None, :]  # (Q, G)
    if not own.any(1).all():
        raise ValueError("a query has no matching item in the gallery")
    best = np.where(own, similarity, -np.inf).max(1, keepdims=True)
    usable = _comparable(similarity, best)
    better = ((similarity > best) & ~own).sum(1)
    same = similarity == best
    tied, mine = (same & ~own).sum(1), (same & own).sum(1)
    return Ranks(
        np.where(usable, better, UNRANKED),
        np.where(usable, tied, 0),
        np.where(usable, mine, 1),
    )


def recall_at(ranks: Ranks, k: int) -> float:
    """Percentage of queries that have a right answer among the `k` first; see `expected_hits`."""
    return 100 * float(expected_hits(ranks, k).mean())


def retrieval_ranks(
    images: NDArray, texts: NDArray, owners: NDArray, *, block: int = 1024
) -> tuple[Ranks, Ranks]:
    """Ranks for image retrieval (per caption) and text retrieval (per image).

    `images` (N, D) and `texts` (M, D) are L2-normalised, `owners` (M,) is the image index of each
    caption; an image may own many captions, and text retrieval counts its best one. Similarities
    are computed `block` queries at a time, so that N x M never lies in memory.
    """
    ids = np.arange(len(images))
    return (
        _ranks_in_blocks(texts, images, owners, ids, block),
        _ranks_in_blocks(images, texts, ids, owners, block),
    )


def _ranks_in_blocks(
    queries: NDArray, gallery: NDArray, query_ids: NDArray, gallery_ids: NDArray, block: int
) -> Ranks:
    firsts = first_of_equals([row.tobytes() for row in gallery])
    starts = range(0, len(queries), block)
    found = [
        # Products of equal columns may differ in their last bit, which would untie them.
        best_ranks((part @ gallery.T)[:, firsts], ids, gallery_ids)
        for part, ids in ((queries[i : i + block], query_ids[i : i + block]) for i in starts)
    ]
    return Ranks(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def first_of_equals(items: Sequence[Hashable]) -> NDArray[np.int64]:
    """The index of the first item that equals each of `items`, (len(items),)."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(item, i) for i, item in enumerate(items)], np.int64)


class Accuracy:
    """Top-1, top-5 where there are more than five classes, and the mean of top-1 over classes."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._ks = {"top1": 1} | ({"top5": 5} if classes > 5 else {})
        self._hits: dict[str, list[float]] = {name: [] for name in self._ks}
        self._labels: list[int] = []
        self._tied = 0

    def update(self, scores: NDArray, labels: NDArray) -> None:
        """Add images by `scores` (N, K) and `labels` (N,); ties count by `expected_hits`."""
        self._labels += labels.tolist()
        ranks = label_ranks(scores, labels)
        self._tied += ranks.tied_queries
        for name, k in self._ks.items():
            self._hits[name] += expected_hits(ranks, k).tolist()

    @property
    def tied(self) -> int:
        """Images whose label has the same score as another class."""
        return self._tied

    def ties(self) -> dict[str, object]:
        """What rows say of ties: how many images have one, and how they count; {} without any."""
        return {"tied_images": self._tied, "ties": RULE_TIES} if self._tied else {}

    def values(self) -> dict[str, float]:
        """Percentages, top-1 first; NaN without any image."""
        images = self.per_image()
        of_classes = images.pop(MEAN_PER_CLASS)
        shares = {name: float(mean_of_present(hits)) for name, hits in images.items()}
        mean = mean_per_class(of_classes["hit"], of_classes["label"], self.classes)
        return {**shares, MEAN_PER_CLASS: mean}

    def per_image(self) -> dict[str, NDArray]:
        """Expected hits (N,) from 0 to 100 by metric, and of the mean over classes `OF_CLASSES`."""
        of_classes = np.zeros(len(self._labels), OF_CLASSES)
        of_classes["label"], of_classes["hit"] = self._labels, self._hits["top1"]
        hits = {name: 100 * np.array(hits, float) for name, hits in self._hits.items()}
        return {**hits, MEAN_PER_CLASS: of_classes}
