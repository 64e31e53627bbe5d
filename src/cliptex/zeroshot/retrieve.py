"""Image-text retrieval with any number of captions per picture."""

from __future__ import annotations

import numpy as np

from cliptex.datasets.protocol import CaptionedImages
from cliptex.metrics import RULE_TIES, expected_hits, first_of_equals, recall_at, retrieval_ranks
from cliptex.zeroshot.encode import (
    TwoTowers,
    ZeroShotConfig,
    ZeroShotOutcome,
    evaluating,
    image_embeddings,
    rows_of,
    say_ties,
    text_embeddings,
    token_keys,
)

KS = (1, 5, 10)


def run_retrieval(
    clip: TwoTowers,
    test: CaptionedImages,
    config: ZeroShotConfig,
    *,
    model: str,
    checkpoint: str = "",
    leak: bool = False,
) -> ZeroShotOutcome:
    """Recall at 1, 5 and 10 both ways.

    `image_r*`: a caption finds its picture (one query per caption); `text_r*`: a picture finds
    any of its captions (one query per picture). Ties count by `cliptex.metrics.expected_hits`, as
    captions of the same tokens do; rows say how many queries have one. Per picture, `image_r*`
    keeps (N, 2) captions that found it (expected) and captions in all, `text_r*` (N,) expected
    hits from 0 to 100. ValueError where a picture has no caption, and where embeddings are not
    finite.
    """
    _require_captions(test)
    clip = evaluating(clip)
    label = f"{model}: retrieval on {test.name}"
    images = image_embeddings(clip, test.image, len(test), config, label=label)
    captions = [caption for captions in test.captions for caption in captions]
    texts = text_embeddings(clip, captions, config, label=label)
    texts = texts[first_of_equals(token_keys(clip, captions))]  # batches may round them otherwise
    owners = np.repeat(np.arange(len(test)), [len(captions) for captions in test.captions])
    by_text, by_image = retrieval_ranks(images.numpy(), texts.numpy(), owners)
    per_image = {f"image_r{k}": _found(expected_hits(by_text, k), owners) for k in KS}
    per_image |= {f"text_r{k}": 100.0 * expected_hits(by_image, k) for k in KS}
    protocol = config.protocol(clip) | {"captions": len(texts), "ties": RULE_TIES}
    names = {"model": model, "checkpoint": checkpoint, "leak": leak}
    rows = []
    for way, ranks, queries in (("image", by_text, "captions"), ("text", by_image, "images")):
        tied = ranks.tied_queries
        say_ties(tied, len(ranks.better), queries, label=f"{label}, {way} retrieval")
        means = {f"{way}_r{k}": recall_at(ranks, k) for k in KS}
        said = protocol | ({f"tied_{queries}": tied} if tied else {})
        rows += rows_of(means, test, config, said, task="retrieval", dataset=test.name, **names)
    return ZeroShotOutcome(rows, per_image)


def _require_captions(test: CaptionedImages) -> None:
    bare = [index for index, captions in enumerate(test.captions) if not captions]
    if bare:
        raise ValueError(
            f"{test.name}: {len(bare)} of {len(test)} pictures have no caption, the first of them "
            f"number {bare[0]} (from 0): retrieval needs one for each; leave these pictures out"
        )


def _found(hits: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """(N, 2) float64 of `hits` (M,) and `owners` (M,): each picture's hits, and its captions.

    Captions of one picture are hit or missed together, so the pictures are what is resampled.
    """
    return np.stack([np.bincount(owners, hits), np.bincount(owners)], axis=1)
