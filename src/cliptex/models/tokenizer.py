"""Text to token ids: CLIP's byte-pair encoding, optionally cut down to the pairs in use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from cliptex.files.network import asking_hub, unavailable
from cliptex.machine import need


@lru_cache(maxsize=1)
def _bpe() -> SimpleTokenizer:
    return SimpleTokenizer()


def compact_vocabulary(captions: Iterable[str]) -> list[int]:
    """Sorted ids of the byte-pair tokens that occur in `captions`, for `CompactTokenizer`."""
    ids: set[int] = set()
    for caption in captions:
        ids.update(_bpe().encode(caption))
    return sorted(ids)


class CompactTokenizer:
    """Byte-pair tokens of a small vocabulary, renumbered without gaps.

    Id 0 is padding, 1..n are the kept tokens in their order, n + 1 starts and n + 2 ends a text:
    the end has the largest id, so that pooling at the largest id finds it. Unknown tokens are
    dropped: an embedding for them would never be trained where the vocabulary covers the corpus.
    """

    def __init__(self, vocabulary: Sequence[int], context_length: int) -> None:
        if context_length < 2:
            raise ValueError(f"context_length must be at least 2, not {context_length}")
        if len(set(vocabulary)) != len(vocabulary) or not vocabulary:
            raise ValueError("vocabulary must be distinct byte-pair token ids, at least one")
        self.context_length = context_length
        self.compact = {bpe: new for new, bpe in enumerate(vocabulary, start=1)}
        self.start, self.end = len(vocabulary) + 1, len(vocabulary) + 2
        self.vocab_size = len(vocabulary) + 3

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context_length) int64; what is too long is cut, its last id the end."""
        result = torch.zeros(len(texts), self.context_length, dtype=torch.long)
        for row, text in enumerate(texts):
            known = [self.compact[t] for t in _bpe().encode(text) if t in self.compact]
            ids = [self.start, *known[: self.context_length - 2], self.end]
            result[row, : len(ids)] = torch.tensor(ids)
        return result


class BpeTokenizer:
    """CLIP's own tokenizer with 49,408 tokens."""

    def __init__(self, context_length: int, **options: Any) -> None:
        self.context_length = context_length
        self.tokenizer = SimpleTokenizer(**options) if options else _bpe()
        self.vocab_size = self.tokenizer.vocab_size

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context_length) int64, start and end marked, zeros behind."""
        return self.tokenizer(list(texts), context_length=self.context_length)


class HubTokenizer:
    """The tokenizer of a Hugging Face model (needs `transformers` and its files).

    Raises ValueError where the files are not in the cache and cannot be downloaded.
    """

    def __init__(self, text_cfg: dict[str, Any], context_length: int) -> None:
        self.context_length = context_length
        name = text_cfg["hf_tokenizer_name"]
        need("transformers", extra="experts", what=f"the text tower's tokenizer {name}")
        try:
            with asking_hub():
                self.tokenizer = HFTokenizer(
                    name,
                    context_length=context_length,
                    tokenizer_mode=text_cfg.get("tokenizer_mode"),
                    **text_cfg.get("tokenizer_kwargs", {}),
                )
        except OSError as error:
            raise unavailable(f"the text tower's tokenizer {name}", error) from error

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, context_length) int64."""
        return self.tokenizer(list(texts))


Tokenizer = CompactTokenizer | BpeTokenizer | HubTokenizer


def build_tokenizer(text_cfg: dict[str, Any], vocabulary: Sequence[int] | None) -> Tokenizer:
    """The tokenizer that an open_clip-style `text_cfg` asks for."""
    context_length = int(text_cfg.get("context_length", 77))
    if vocabulary is not None:
        return CompactTokenizer(vocabulary, context_length)
    if text_cfg.get("hf_tokenizer_name"):
        return HubTokenizer(text_cfg, context_length)
    return BpeTokenizer(context_length, **text_cfg.get("tokenizer_kwargs", {}))
