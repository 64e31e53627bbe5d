"""Zero-shot classification by averaged prompt embeddings (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import say
from cliptex.datasets.protocol import LabelledImages
from cliptex.metrics import MEAN_PER_CLASS, RULE_PER_CLASS, Accuracy
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
from cliptex.zeroshot.prompts import Names, fill, names_for, prompt_protocol

SHOWN = 4
"""Classes of a group, and groups, that a message names."""


def classifier_weights(
    clip: TwoTowers, classes: Names, config: ZeroShotConfig, *, label: str = "zero-shot"
) -> Tensor:
    """One L2-normalised embedding per class, (K, D) float32.

    A class is a name or several synonyms; the embeddings of all its names in all templates are
    averaged with equal weight. ValueError that starts with `label` where they are not finite.
    """
    names = [_synonyms(c) for c in classes]
    if not all(names):
        raise ValueError("a class without a name cannot be prompted")
    prompts = [[p for name in group for p in fill(config.templates, name)] for group in names]
    flat = text_embeddings(clip, [p for group in prompts for p in group], config, label=label)
    means = [part.mean(0) for part in flat.split([len(group) for group in prompts])]
    return F.normalize(torch.stack(means), dim=-1)


def alike_classes(
    clip: TwoTowers, classes: Names, templates: Sequence[str]
) -> list[tuple[int, ...]]:
    """Groups of the indices of classes whose prompts are the same tokens, template by template.

    So are equal names, and names that differ in words alone which the tokenizer drops.
    """
    groups = [tuple(range(len(classes)))]
    for template in templates:  # the first tells nearly all apart, so few are asked for more
        found: dict[tuple[int, bytes], tuple[int, ...]] = {}
        for number, group in enumerate(groups):
            for index in group:
                prompts = [fill((template,), name)[0] for name in _synonyms(classes[index])]
                tokens = sorted(token_keys(clip, prompts))
                key = number, b"".join(tokens)
                found[key] = (*found.get(key, ()), index)
        groups = [group for group in found.values() if len(group) > 1]
    return groups


def alike_protocol(
    groups: Sequence[tuple[int, ...]], classes: Names, *, label: str, so: str
) -> dict[str, object]:
    """How many classes no prompt tells from another, for rows; {} where all are told apart.

    `groups` are those of `alike_classes`. They are named on standard error, in a line that starts
    with `label` and ends with `so`: what comes of it.
    """
    if not groups:
        return {}
    count = sum(map(len, groups))
    texts = [_shown([" / ".join(_synonyms(classes[i])) for i in g], " = ") for g in groups]
    say(
        f"{label}: {count} of {len(classes)} classes have the same prompts as another: "
        f"{_shown(texts, '; ')}. Their names are equal, or differ in words that the model's "
        f"tokenizer does not know: {so}"
    )
    return {"classes_alike": count}


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
    finite. Classes that share all prompts are named (see `alike_protocol`) and score alike; how
    ties count is said by `cliptex.metrics.expected_hits`, how many there are by the rows.
    """
    asked = names_for(test.classes, classes, test.name)
    clip = evaluating(clip)
    label = f"{model}: zero-shot on {test.name}"
    groups = alike_classes(clip, asked, config.templates)
    alike = alike_protocol(groups, asked, label=label, so="they tie")
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


def _synonyms(name: str | Sequence[str]) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else tuple(name)


def _shown(texts: Sequence[str], between: str) -> str:
    """The first of `texts`, and how many there are more."""
    more = len(texts) - SHOWN
    return between.join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
