"""Small files of an export: JSON, and the vocabulary of a compact tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cliptex.models.spec import ClipConfig

VOCABULARY_JSON = "vocabulary.json"


def write_json(path: Path, content: Any) -> None:
    """Indented JSON with a line break at the end."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def dtype_free(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: detached, on the CPU, contiguous, not shared."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def write_vocabulary(config: ClipConfig, folder: Path) -> list[str]:
    """Write a compact tokenizer's vocabulary, which no other library has; returns a note on it."""
    if not isinstance(config.vocabulary, tuple):
        return []
    write_json(folder / VOCABULARY_JSON, list(config.vocabulary))
    length = config.text_cfg.get("context_length", 77)
    return [
        f"The text tower reads a cut vocabulary of {len(config.vocabulary)} byte-pair tokens. No "
        f"tokenizer of the library makes its ids: use "
        f"`cliptex.models.tokenizer.CompactTokenizer(json.load(open('{VOCABULARY_JSON}')), "
        f"{length})`."
    ]
