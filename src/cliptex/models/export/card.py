"""The card of an exported model: what it is, where it comes from, and code that loads it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cliptex.models.export.source import Checkpoint

CARD = "README.md"


@dataclass(frozen=True)
class Card:
    """title: kind of model; code: Python that loads it; notes: what else to know."""

    title: str
    code: str
    notes: list[str]


def write_card(card: Card, source: Checkpoint, folder: Path, difference: float) -> Path:
    """Write README.md into `folder`; its code runs as it stands with the folder as working one."""
    config, image = source.clip.config, source.clip.image
    weights = f"sha256 `{source.sha256}`" if source.sha256 else "no single file"
    colours = [", ".join(f"{x:g}" for x in values) for values in (config.mean, config.std)]
    lines = [
        f"# {card.title}",
        "",
        f"Exported by cliptex {version('cliptex')}.",
        "",
        f"- From: `{source.name}` ({weights})",
        f"- Embedding: {image.embed_dim} numbers; trained at {image.image_size} pixels; "
        f"sides must be multiples of {image.stride}",
        f"- Colours of images in [0, 1]: mean {colours[0]}; std {colours[1]}",
        f"- Largest difference from the original when it was written: {difference:.2g}",
        "",
        "```python",
        card.code.rstrip(),
        "```",
        *(f"\n{note}" for note in card.notes),
    ]
    path = folder / CARD
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
