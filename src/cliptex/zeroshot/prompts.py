"""What classes are asked for with: templates, names, and the embeddings of both.

`{}` in a template stands for the name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn import functional as F

from cliptex.console import say
from cliptex.datasets.imagenet import is_synset
from cliptex.datasets.protocol import read_lines
from cliptex.zeroshot.encode import (
    TwoTowers,
    ZeroShotConfig,
    text_embeddings,
    token_keys,
)

Templates = tuple[str, ...]
Names = Sequence[str | Sequence[str]]  # per class a name, or synonyms

# The 80 templates of Radford et al. 2021 and their subset of seven, as open_clip keeps them.
IMAGENET_TEMPLATES: Templates = tuple(t("{}") for t in OPENAI_IMAGENET_TEMPLATES)
SHORT_TEMPLATES: Templates = tuple(t("{}") for t in SIMPLE_IMAGENET_TEMPLATES)
# Few and plain, in the words that the playroom's captions use.
PLAYROOM_TEMPLATES: Templates = (
    "{}",
    "a {}",
    "a photo of a {}",
    "a {} in a room",
    "a picture of a {}",
)

NAMED_TEMPLATES = {"openai80": IMAGENET_TEMPLATES, "simple": SHORT_TEMPLATES}
# VOC's words that no caption would use.
READABLE = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
}
_NUMBERED = re.compile(r"class \d+")
SHOWN = 4
"""Classes of a group, and groups, that a message names."""


def read_templates(name: str) -> Templates:
    """The templates called `name` (openai80, simple), or those of a file, one a line."""
    if name in NAMED_TEMPLATES:
        return NAMED_TEMPLATES[name]
    templates = _lines(name, f"templates {name!r}: neither {sorted(NAMED_TEMPLATES)} nor a file")
    fill(templates, "")
    return templates


def read_names(path: Path) -> list[tuple[str, ...]]:
    """Names of classes from a file, one class a line in the classes' order, synonyms after `;`.

    ValueError where there is no file, or a line with no name.
    """
    lines = _lines(str(path), f"{path}: no such file of class names")
    found = [tuple(name.strip() for name in line.split(";") if name.strip()) for line in lines]
    if not all(found):
        where = lines[found.index(())]
        raise ValueError(f"{path}: the line {where!r} holds no name: one class a line")
    return found


def readable(classes: Sequence[str]) -> list[str]:
    """Class names as words; ValueError for what names nothing: n01440764, or "class 7"."""
    opaque = [name for name in classes if is_synset(name) or _NUMBERED.fullmatch(name)]
    if opaque:
        raise ValueError(
            f"{len(opaque)} of {len(classes)} classes have no name to prompt with, beginning with "
            f"{opaque[0]!r}: give a file of names, one a line in the order of the classes "
            "(`classes`)"
        )
    return [READABLE.get(name, name.replace("_", " ")) for name in classes]


def names_for(classes: Sequence[str], asked: Names | None, dataset: str) -> Names:
    """`asked`, or the classes' own names; ValueError where their numbers differ."""
    if asked is None:
        return readable(classes)
    if len(asked) != len(classes):
        raise ValueError(f"{len(asked)} names for the {len(classes)} classes of {dataset}")
    return asked


def prompt_protocol(templates: Templates, names: Names) -> dict[str, object]:
    """What rows say of the prompts: templates (a known list by its name), and the names' hash."""
    known = [name for name, listed in NAMED_TEMPLATES.items() if listed == templates]
    text = "\n".join(name if isinstance(name, str) else ";".join(name) for name in names)
    return {
        "templates": known[0] if known else list(templates),
        "classes": len(names),
        "class_names": "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def _lines(path: str, absent: str) -> Templates:
    file = Path(path)
    if not file.is_file():
        raise ValueError(absent)
    lines = tuple(read_lines(file))
    if not lines:
        raise ValueError(f"{file} is empty")
    return lines


def fill(templates: Sequence[str], name: str) -> list[str]:
    """Every template with `name` in place of `{}`; ValueError where a template has no place."""
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} needs exactly one {{}}")
    return [template.replace("{}", name) for template in templates]


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


def same_prompt_groups(
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


def same_prompt_protocol(
    groups: Sequence[tuple[int, ...]], classes: Names, *, label: str, so: str
) -> dict[str, object]:
    """How many classes have the same prompts as another, for rows; {} where none has.

    `groups` are those of `same_prompt_groups`. They are named on standard error, in a line that
    starts with `label` and ends with `so`: what comes of it.
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


def _synonyms(name: str | Sequence[str]) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else tuple(name)


def _shown(texts: Sequence[str], between: str) -> str:
    """The first of `texts`, and how many there are more."""
    more = len(texts) - SHOWN
    return between.join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
