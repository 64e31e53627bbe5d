"""Token ids: CLIP's own, and renumbered for a small vocabulary."""

from __future__ import annotations

import pytest
import torch
from open_clip import get_tokenizer

from cliptex.models.tokenizer import CompactTokenizer, build_tokenizer, compact_vocabulary

CAPTIONS = ["a red ball on the floor", "two red chairs!"]


def test_full_vocabulary_is_open_clips() -> None:
    ours = build_tokenizer({"context_length": 77}, None)
    assert torch.equal(ours(CAPTIONS), get_tokenizer("ViT-B-16")(CAPTIONS))
    assert build_tokenizer({"context_length": 5}, None)(CAPTIONS).shape == (2, 5)


def test_compact_ids() -> None:
    vocabulary = compact_vocabulary(["a ball", "ball a!"])
    assert len(vocabulary) == 3 and vocabulary == sorted(vocabulary)
    tokenizer = CompactTokenizer(vocabulary, 6)
    assert (tokenizer.vocab_size, tokenizer.start, tokenizer.end) == (6, 4, 5)
    one, two, three = (tokenizer.compact[bpe] for bpe in vocabulary)
    assert [one, two, three] == [1, 2, 3]
    ids = tokenizer(["a zebra ball", "a a a a a a a", ""])
    a, ball = tokenizer(["a ball"])[0, 1:3].tolist()
    assert ids.tolist() == [[4, a, ball, 5, 0, 0], [4, a, a, a, a, 5], [4, 5, 0, 0, 0, 0]]
    assert ids.argmax(1).tolist() == [3, 5, 1]  # pooling at the largest id finds the end


def test_bad_vocabularies() -> None:
    for vocabulary, length in (([], 8), ([1, 1], 8), ([1], 1)):
        with pytest.raises(ValueError, match="vocabulary|context_length"):
            CompactTokenizer(vocabulary, length)
