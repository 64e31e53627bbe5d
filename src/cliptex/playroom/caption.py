"""Captions: one noisy web alt-text, or several careful human-like descriptions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cliptex.playroom.parts import COLOUR_WORDS
from cliptex.playroom.render import Rendering
from cliptex.playroom.things import THINGS
from cliptex.playroom.world import Scene, Thing

Rng = np.random.Generator

SYNONYMS: dict[str, tuple[str, ...]] = {
    "chair": ("chair", "chair", "seat", "wooden chair"),
    "table": ("table", "table", "desk", "coffee table"),
    "lamp": ("lamp", "lamp", "floor lamp", "light"),
    "plant": ("plant", "plant", "potted plant", "houseplant"),
    "ball": ("ball", "ball", "beach ball", "toy ball"),
    "car": ("car", "car", "toy car", "automobile"),
    "duck": ("duck", "duck", "rubber duck", "toy duck"),
    "robot": ("robot", "robot", "toy robot", "android"),
    "mug": ("mug", "mug", "cup", "coffee mug"),
    "bottle": ("bottle", "bottle", "glass bottle", "wine bottle"),
    "crate": ("crate", "crate", "wooden crate", "box"),
    "clock": ("clock", "clock", "alarm clock", "retro clock"),
}
JUNK: tuple[str, ...] = (
    "img_{n}.jpg",
    "DSC0{n}",
    "photo {n}",
    "image may contain: indoor",
    "untitled",
    "product image {n}",
    "thumbnail",
)
UNRELATED: tuple[str, ...] = (
    "sunset over the mountains near the lake",
    "click here to see our latest offers",
    "the mayor speaks at the opening of the new bridge",
    "how to bake bread in ten easy steps",
    "football players celebrate after the match",
    "portrait of a woman with a red hat",
    "free shipping on all orders this week",
    "aerial view of the city at night",
)
WEB_TEMPLATES: tuple[str, ...] = (
    "{a}",
    "a photo of {a}",
    "{a} in a room",
    "{a} {where}",
    "{a} in a room with {walls}",
    "{a} on {floor}",
    "stock photo: {a}",
    "{a} - home decor ideas",
    "beautiful {a} for your home",
    "picture of {a} {where}",
    "{a} for sale",
    "interior with {a}",
    "my new {a} | blog",
    "{a} and {walls}",
    "vintage {a}, good condition",
    "playroom with {a}",
)
MIN_SHARE = 0.004  # of the picture: smaller things are not worth a word

_PATTERNS: dict[str, str] = {
    "planks": "wood-panelled",
    "brick": "brick",
    "tiles": "tiled",
    "speckle": "textured",
    "plain": "",
    "striped": "striped",
    "checkered": "checkered",
    "dotted": "dotted",
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A thing worth mentioning: where it is in the picture (fractions) and how large."""

    thing: Thing
    x: float
    bottom: float
    share: float


def visible(scene: Scene, rendering: Rendering) -> list[Seen]:
    """Things that cover at least MIN_SHARE of the picture, largest first."""
    height, width = rendering.instances.shape
    found = []
    for k, thing in enumerate(scene.things, start=1):
        rows, columns = np.nonzero(rendering.instances == k)
        share = len(rows) / (height * width)
        if share >= MIN_SHARE:
            x, bottom = float(columns.mean() / width), float(rows.max() / height)
            found.append(Seen(thing=thing, x=x, bottom=bottom, share=share))
    return sorted(found, key=lambda seen: -seen.share)


def _pick(rng: Rng, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def colour_word(name: str) -> str:
    return COLOUR_WORDS.get(name, name)


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def place_words(seen: Seen) -> str:
    if seen.thing.support in ("table", "shelf", "rug"):
        return f"on the {seen.thing.support}"
    if seen.x < 0.36:
        return "on the left"
    return "on the right" if seen.x > 0.64 else "in the middle"


def wall_words(scene: Scene) -> str:
    colour, pattern = scene.room.wall_words
    return " ".join(filter(None, (colour_word(colour), _PATTERNS[pattern], "walls")))


def floor_words(scene: Scene) -> str:
    colour, pattern = scene.room.floor_words
    if pattern == "planks":
        return f"{colour if colour not in ('oak', 'pine') else 'light'} wooden floor"
    return " ".join(filter(None, (colour_word(colour), _PATTERNS[pattern], "floor")))


def _noun(rng: Rng, thing: Thing, *, colour: float, pattern: float, name: str | None = None) -> str:
    """Noun phrase without article; adjectives come with the given probabilities."""
    noun = _pick(rng, SYNONYMS[name or thing.name])
    words = []
    if rng.random() < colour and noun != "wooden " + (name or thing.name):
        words.append(colour_word(thing.colour))
    if thing.pattern != "plain" and rng.random() < pattern:
        words.append("slatted" if thing.pattern == "slatted" else thing.pattern)
    if thing.tipped and rng.random() < 0.4:
        words.insert(0, "fallen")
    return " ".join([*words, noun])


def web_caption(scene: Scene, rendering: Rendering, rng: Rng) -> str:
    """One alt-text as found on the web: partial, noisy, in about one case of seven wrong.

    It names one or two visible things (about 10 % of such texts swap in a wrong class); about
    5 % are junk such as file names and 5 % belong to another picture.
    """
    fate = rng.random()
    seen = visible(scene, rendering)
    if fate < 0.05:
        return _pick(rng, JUNK).format(n=int(rng.integers(1000, 9999)))
    if fate < 0.10:
        return _pick(rng, UNRELATED)
    if not seen:
        return f"room with {wall_words(scene)} and {article(floor_words(scene))}"
    weights = np.array([s.share for s in seen]) ** 0.5
    count = min(len(seen), 1 + int(rng.random() < 0.55))
    chosen = [seen[i] for i in rng.choice(len(seen), count, False, weights / weights.sum())]
    names = [s.thing.name for s in chosen]
    if rng.random() < 0.10:
        absent = [n for n in THINGS if all(s.thing.name != n for s in seen)]
        names[0] = _pick(rng, absent)
    phrases = [
        _noun(rng, s.thing, colour=0.5, pattern=0.5, name=name)
        for s, name in zip(chosen, names, strict=True)
    ]
    joined = _pick(rng, (" and ", " with ", ", ", " next to ")).join(phrases)
    text = _pick(rng, WEB_TEMPLATES).format(
        a=joined,
        where=place_words(chosen[0]),
        walls=wall_words(scene),
        floor=article(floor_words(scene)),
    )
    return text.capitalize() if rng.random() < 0.3 else text


def _relation(rng: Rng, a: Seen, b: Seen) -> str:
    """How a lies to b, as a viewer would say."""
    if a.thing.support == "table" and b.thing.name == "table":
        return "on"
    if abs(a.x - b.x) > 0.12:
        side = "left" if a.x < b.x else "right"
        return _pick(rng, (f"to the {side} of", f"{side} of"))
    return "in front of" if a.bottom > b.bottom else "behind"


def _clean_one(scene: Scene, seen: list[Seen], rng: Rng) -> str:
    if not seen:
        return f"An empty room with {wall_words(scene)} and {article(floor_words(scene))}."
    order = list(rng.permutation(min(len(seen), 4)))
    first = seen[int(order[0])]
    phrase = article(_noun(rng, first.thing, colour=0.85, pattern=0.8))
    if first.thing.support in ("rug", "table", "shelf") and rng.random() < 0.5:
        phrase += f" on the {first.thing.support}"
    if len(order) > 1:
        second = seen[int(order[1])]
        other = article(_noun(rng, second.thing, colour=0.85, pattern=0.8))
        phrase += f" {_relation(rng, first, second)} {other}"
        if len(order) > 2 and rng.random() < 0.6:
            third = article(_noun(rng, seen[int(order[2])].thing, colour=0.7, pattern=0.6))
            phrase += f" and {third}"
    elif rng.random() < 0.6:
        phrase += " " + place_words(first)
    ending = _pick(
        rng,
        (
            "",
            f" in a room with {wall_words(scene)}",
            f" on {article(floor_words(scene))}",
            f" in a room with {wall_words(scene)} and {article(floor_words(scene))}",
            *(f", with {article(piece)} behind" for piece in _pieces(scene)),
        ),
    )
    sentence = phrase + ending
    return sentence[0].upper() + sentence[1:] + "."


def _pieces(scene: Scene) -> list[str]:
    return [piece.name for piece in scene.stuff if piece.name in ("door", "window", "shelf")]


def clean_captions(scene: Scene, rendering: Rendering, rng: Rng, count: int = 5) -> list[str]:
    """Careful descriptions, as five annotators would write: never a wrong class."""
    seen = visible(scene, rendering)
    return [_clean_one(scene, seen, rng) for _ in range(count)]


def caption_rng(scene: Scene) -> Rng:
    """The generator for a scene's captions: independent of the picture's own noise."""
    return np.random.Generator(np.random.PCG64([scene.sensor.seed, 0xCAB]))
