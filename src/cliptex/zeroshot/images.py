"""Whole pictures compared with texts: classification by prompts, and retrieval.

Classification is by averaged prompt embeddings (Radford et al. 2021, section 3.1.4).
"""

from __future__ import annotations

import numpy as np

from cliptex.datasets.protocol import CaptionedImages, LabelledImages
from cliptex.metrics import (
    MEAN_PER_CLASS,
    RULE_PER_CLASS,
    RULE_TIES,
    Accuracy,
    expected_hits,
    first_of_equals,
    recall_at,
    retrieval_ranks,
)
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
from cliptex.zeroshot.prompts import (
    Names,
    classifier_weights,
    names_for,
    prompt_protocol,
    same_prompt_groups,
    same_prompt_protocol,
)

KS = (1, 5, 10)


def run_zeroshot(
    clip: TwoTowers,
    test: LabelledImages,
    config: ZeroShotConfig,
    *,
    model: str,
    checkpoint: str = "",
    classes: Names | None = None,
    leak: bool = False,
) -> ZeroShotOutcome:
    """Top-1, top-5 where there are more than five classes, and mean per class of `test`.

    `classes` gives names or synonyms to prompt with, one entry per class of `test`; its own names
    by default. ValueError where these name nothing (synset numbers), and where embeddings are not
    finite. Classes with the same prompts are named (see `same_prompt_protocol`) and get the same
    scores. Ties count by `cliptex.metrics.expected_hits`; rows say how many there are.
    """
    asked = names_for(test.classes, classes, test.name)
    clip = evaluating(clip)
    label = f"{model}: zero-shot on {test.name}"
    groups = same_prompt_groups(clip, asked, config.templates)
    alike = same_prompt_protocol(groups, asked, label=label, so="they tie")
    weights = classifier_weights(clip, asked, config, label=label)
    labels: list[int] = []

    def read(index: int):
        image, own = test[index]
        labels.append(own)
        return image

    images = image_embeddings(clip, read, len(test), config, label=label)
    accuracy = Accuracy(len(asked))
    scores = (images @ weights.T).numpy()  # (N, K)
    for group in groups:
        scores[:, group] = scores[:, group[:1]]  # rounding alone would tell them apart
    accuracy.update(scores, np.array(labels))
    say_ties(accuracy.tied, len(test), "images", label=label)
    protocol = config.protocol(clip) | prompt_protocol(config.templates, asked) | alike
    protocol |= accuracy.ties()
    names = {"model": model, "checkpoint": checkpoint, "leak": leak}
    names |= {"task": "zeroshot", "dataset": test.name}
    values = accuracy.values()
    of_classes = {MEAN_PER_CLASS: values.pop(MEAN_PER_CLASS)}
    rows = rows_of(values, test, config, protocol, **names)
    rows += rows_of(of_classes, test, config, protocol | {"metric": RULE_PER_CLASS}, **names)
    return ZeroShotOutcome(rows, accuracy.per_image())


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
