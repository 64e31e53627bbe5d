"""Accuracy of classes and recall of retrieval, in percent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliptex.metrics.means import mean_of_present, percent_of

UNRANKED = np.iinfo(np.int64).max
"""Rank of a query whose similarities say nothing: beyond the recall of every gallery."""


def topk_hits(scores: NDArray, labels: NDArray, k: int = 1) -> NDArray[np.bool_]:
    """Whether each row's label is among its `k` best scores, (N,) bool.

    `scores` (N, C), `labels` (N,). Ties count against the label, so that constant scores earn
    nothing; a row with a NaN among its scores, or without a finite one for its label, is a miss.
    """
    own = np.take_along_axis(scores, labels[:, None].astype(np.int64), axis=1)
    return ((scores >= own).sum(1) - 1 < k) & _comparable(scores, own)


def _comparable(scores: NDArray, own: NDArray) -> NDArray[np.bool_]:
    """Rows of `scores` (N, C) that rank their `own` (N, 1): NaN would be below everything."""
    return np.isfinite(own[:, 0]) & ~np.isnan(scores).any(1)


def topk(scores: NDArray, labels: NDArray, k: int = 1) -> float:
    """Percentage of rows whose label is among the `k` best scores."""
    return 100 * float(topk_hits(scores, labels, k).mean())


def mean_per_class(hits: NDArray[np.bool_], labels: NDArray, classes: int) -> float:
    """Mean over classes, in percent, of each class's share of `hits` (N,), as `labels` (N,) say.

    Classes without an image are left out; NaN without any image.
    """
    count = np.bincount(labels, minlength=classes)  # (C,)
    right = np.bincount(labels, weights=hits, minlength=classes)
    return float(mean_of_present(percent_of(right, count)))


def best_ranks(similarity: NDArray, query_ids: NDArray, gallery_ids: NDArray) -> NDArray[np.int64]:
    """Rank (0 = first) of each query's best own gallery item, (Q,) int64.

    `similarity` (Q, G); an item is a query's own where the ids agree. Items of others that tie
    count as ranked before. A query with a NaN among its similarities, or without a finite one to
    an own item, has the rank `UNRANKED`. A query without an own item raises ValueError.
    """
    own = query_ids[:, None] == gallery_ids[None, :]  # (Q, G)
    if not own.any(1).all():
        raise ValueError("a query has no matching item in the gallery")
    best = np.where(own, similarity, -np.inf).max(1, keepdims=True)
    ranks = ((similarity >= best) & ~own).sum(1)
    return np.where(_comparable(similarity, best), ranks, UNRANKED)


def recall_at(ranks: NDArray, k: int) -> float:
    """Percentage of queries whose rank (0 = first) is below `k`."""
    return 100 * float((np.asarray(ranks) < k).mean())


def retrieval_ranks(
    images: NDArray, texts: NDArray, owners: NDArray, *, block: int = 1024
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks for image retrieval (per caption) and text retrieval (per image).

    `images` (N, D) and `texts` (M, D) are L2-normalised, `owners` (M,) is the image index of each
    caption; an image may own many captions, and text retrieval counts its best one. Similarities
    are computed `block` queries at a time, so that N x M never lies in memory.
    """
    ids = np.arange(len(images))
    of_texts = [
        best_ranks(texts[i : i + block] @ images.T, owners[i : i + block], ids)
        for i in range(0, len(texts), block)
    ]
    of_images = [
        best_ranks(images[i : i + block] @ texts.T, ids[i : i + block], owners)
        for i in range(0, len(images), block)
    ]
    return np.concatenate(of_texts), np.concatenate(of_images)
