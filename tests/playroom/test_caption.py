"""Noise rates of alt-texts, and truthfulness of clean captions."""

from __future__ import annotations

import re

import numpy as np

from cliptex.playroom.caption import (
    JUNK,
    SYNONYMS,
    UNRELATED,
    clean_captions,
    visible,
    web_caption,
)
from cliptex.playroom.render import Rendering, render
from cliptex.playroom.scene import Scene, sample_scene
from cliptex.playroom.things import THINGS

_HEADS = {word: name for name, words in SYNONYMS.items() for word in words}


def _named(text: str) -> set[str]:
    """Classes whose words occur in a text, longest words first."""
    found: set[str] = set()
    text = re.sub(r"light (?=blue|green|wooden)", "", text.lower())  # the adjective
    for word in sorted(_HEADS, key=len, reverse=True):
        if re.search(rf"\b{word}\b", text):
            found.add(_HEADS[word])
            text = re.sub(rf"\b{word}\b", "", text)
    return found


def _rooms() -> list[tuple[Scene, Rendering]]:
    scenes = [sample_scene("web", "val", index) for index in range(30)]
    return [(scene, render(scene, 48, 48)) for scene in scenes]


def test_rates_of_noise() -> None:
    wrong = junk = unrelated = partial = total = 0
    rng = np.random.default_rng(0)
    shapes = [re.escape(text).replace(r"\{n\}", r"\d+") for text in JUNK]
    for scene, rendering in _rooms():
        present = {seen.thing.name for seen in visible(scene, rendering)}
        if len(present) < 2:
            continue
        for _ in range(60):
            text = web_caption(scene, rendering, rng)
            total += 1
            unrelated += text in UNRELATED
            junk += any(re.fullmatch(shape, text) for shape in shapes)
            wrong += text not in UNRELATED and bool(_named(text) - present)
            partial += bool(present - _named(text))
    assert total > 1000
    assert 0.03 < junk / total < 0.07
    assert 0.03 < unrelated / total < 0.07
    assert 0.06 < wrong / total < 0.13
    assert partial / total > 0.5


def test_clean_captions_name_only_what_is_there() -> None:
    for scene, rendering in _rooms():
        present = {seen.thing.name for seen in visible(scene, rendering)}
        captions = clean_captions(scene, rendering, np.random.default_rng(1), 5)
        assert len(captions) == 5
        for text in captions:
            assert _named(text) <= present
            assert text[0].isupper() and text.endswith(".")


def test_deterministic() -> None:
    scene, rendering = _rooms()[0]
    texts = [web_caption(scene, rendering, np.random.default_rng(7)) for _ in range(2)]
    assert texts[0] == texts[1]


def test_every_class_has_words() -> None:
    assert set(SYNONYMS) == set(THINGS)
    assert len(_HEADS) == sum(len(set(words)) for words in SYNONYMS.values())
