"""open_clip's own models by name: the same embeddings to the bit, from the same random weights."""

from __future__ import annotations

import open_clip
import pytest
import torch

from cliptex.models.clip import random_clip
from cliptex.models.sources import load_exactly, named_config, own_names

TEXTS = ["a photo of a dog", "two chairs, a lamp and a red ball on the floor"]


@pytest.mark.parametrize("name", ["ViT-B-16", "RN50", "convnext_tiny"])
@torch.no_grad()
def test_embeddings_equal_open_clips(name: str) -> None:
    torch.manual_seed(11)
    original = open_clip.create_model(name).eval()
    ours = random_clip(named_config(f"open_clip:{name}"), seed=0).eval()
    load_exactly(ours, own_names(original.state_dict(), "open_clip"), name)
    images = torch.rand(2, 3, 224, 224)
    normal = (images - ours.image.mean) / ours.image.std
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    assert torch.equal(ours.tokenize(TEXTS), tokens)
    assert torch.equal(ours.image(images).embedding, original.encode_image(normal))
    assert torch.equal(ours.encode_image(images), original.encode_image(normal, normalize=True))
    assert torch.equal(ours.encode_text(tokens), original.encode_text(tokens, normalize=True))
