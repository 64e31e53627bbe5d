"""What classes are asked for with: templates, in which `{}` stands for the name, and names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from cliptex.datasets.imagenet import is_synset
from cliptex.datasets.protocol import read_lines

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
