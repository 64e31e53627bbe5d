"""Zero-shot classification by averaged prompt embeddings (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.datasets.protocol import LabelledImages
from cliptex.metrics import MEAN_PER_CLASS, RULE_PER_CLASS, Accuracy
from cliptex.zeroshot.encode import (
    TwoTowers,
    ZeroShotConfig,
    ZeroShotOutcome,
    evaluating,
    image_embeddings,
    rows_of,
    text_embeddings,
)
from cliptex.zeroshot.prompts import Names, fill, names_for, prompt_protocol


def classifier_weights(
    clip: TwoTowers, classes: Names, config: ZeroShotConfig, *, label: str = "zero-shot"
) -> Tensor:
    """One L2-normalised embedding per class, (K, D) float32.

    A class is a name or several synonyms; the embeddings of all its names in all templates are
    averaged with equal weight. ValueError that starts with `label` where they are not finite.
    """
    names = [(c,) if isinstance(c, str) else tuple(c) for c in classes]
    if not all(names):
        raise ValueError("a class without a name cannot be prompted")
    prompts = [[p for name in group for p in fill(config.templates, name)] for group in names]
    flat = text_embeddings(clip, [p for group in prompts for p in group], config, label=label)
    means = [part.mean(0) for part in flat.split([len(group) for group in prompts])]
    return F.normalize(torch.stack(means), dim=-1)


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
    finite.
    """
    asked = names_for(test.classes, classes, test.name)
    clip = evaluating(clip)
    label = f"{model}: zero-shot on {test.name}"
    weights = classifier_weights(clip, asked, config, label=label)
    labels: list[int] = []

    def read(index: int):
        image, own = test[index]
        labels.append(own)
        return image

    images = image_embeddings(clip, read, len(test), config, label=label)
    accuracy = Accuracy(len(asked))
    accuracy.update((images @ weights.T).numpy(), np.array(labels))
    protocol = config.protocol(clip) | prompt_protocol(config.templates, asked)
    names = {"model": model, "checkpoint": checkpoint, "leak": leak}
    names |= {"task": "zeroshot", "dataset": test.name}
    values = accuracy.values()
    of_classes = {MEAN_PER_CLASS: values.pop(MEAN_PER_CLASS)}
    rows = rows_of(values, test, config, protocol, **names)
    rows += rows_of(of_classes, test, config, protocol | {"metric": RULE_PER_CLASS}, **names)
    return ZeroShotOutcome(rows, accuracy.per_image())
