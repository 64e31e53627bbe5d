"""The frozen world: a hash of the first scenes of every domain and split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from cliptex.playroom.domains import DOMAINS
from cliptex.playroom.scene import SPLITS, sample_scene
from cliptex.playroom.things import THINGS

FROZEN = Path(__file__).with_name("frozen.json")
SCENES = 20


def _rounded(value: object) -> object:
    """Floats to 6 decimals, so that the last bit of a platform's sine does not count."""
    if isinstance(value, float):
        return round(value, 6) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def freeze() -> dict[str, str]:
    """sha256 of the canonical JSON of the first scenes, by "domain/split" and "domain/focus"."""
    result = {}
    for domain in DOMAINS:
        for split in SPLITS:
            scenes = [sample_scene(domain, split, index) for index in range(SCENES)]
            result[f"{domain}/{split}"] = _digest([asdict(scene) for scene in scenes])
        focused = [sample_scene(domain, "train", i, focus=name) for i, name in enumerate(THINGS)]
        result[f"{domain}/focus"] = _digest([asdict(scene) for scene in focused])
    return result


def _digest(content: object) -> str:
    text = json.dumps(_rounded(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def recorded() -> dict[str, str]:
    """The hashes recorded when the world was frozen."""
    return json.loads(FROZEN.read_text())
