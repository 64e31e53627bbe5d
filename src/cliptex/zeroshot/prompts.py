"""Prompt templates for zero-shot classification; `{}` stands for the class name."""

from __future__ import annotations

from collections.abc import Sequence

from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

Templates = tuple[str, ...]

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


def fill(templates: Sequence[str], name: str) -> list[str]:
    """Every template with `name` in place of `{}`; ValueError where a template has no place."""
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} needs exactly one {{}}")
    return [template.replace("{}", name) for template in templates]
