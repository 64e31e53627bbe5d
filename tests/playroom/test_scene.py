"""Scenes are pure functions of their arguments, frozen, and of useful composition."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cliptex.playroom.render import render
from cliptex.playroom.scene import (
    CLASSES,
    DOMAINS,
    EXPERT_THINGS,
    SPLITS,
    STUFF,
    THINGS,
    sample_scene,
)

FROZEN = Path(__file__).with_name("frozen.json")  # hashes recorded when the world was frozen
SCENES = 20
PROGRAM = """
import hashlib
from cliptex.playroom.render import render
from cliptex.playroom.scene import sample_scene
r = render(sample_scene("home", "val", 5, seed=3), 40, 40)
arrays = (r.image, r.depth, r.normals, r.semantic, r.instances)
print(hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
"""


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


def test_classes() -> None:
    assert ("background", *THINGS, *STUFF) == CLASSES
    assert len(THINGS) == 12 and len(STUFF) == 8 and THINGS[:8] == EXPERT_THINGS


def test_the_world_is_frozen() -> None:
    """A difference means that shipped weights and published numbers are of another world."""
    assert freeze() == json.loads(FROZEN.read_text())


def test_same_bytes_in_every_process() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout


def test_arguments_make_a_difference() -> None:
    base = sample_scene("web", "train", 0)
    assert base == sample_scene("web", "train", 0)
    others = [
        sample_scene("web", "val", 0),
        sample_scene("web", "train", 1),
        sample_scene("web", "train", 0, seed=1),
        sample_scene("web", "train", 0, focus="duck"),
        sample_scene("home", "train", 0),
    ]
    assert all(other.camera != base.camera for other in others)


@pytest.mark.parametrize(
    ("arguments", "focus", "message"),
    [
        (("attic", "train", 0), None, "unknown domain 'attic'"),
        (("web", "train", -1), None, "negative"),
        (("web", "train", 0), "sofa", "unknown class 'sofa'"),
    ],
)
def test_bad_arguments(arguments: tuple[str, str, int], focus: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_scene(*arguments, focus=focus)


def test_focus_dominates() -> None:
    for index, name in enumerate(THINGS * 2):
        scene = sample_scene("home", "val", index, focus=name)
        assert scene.things[0].name == name
        shares = np.bincount(render(scene, 48, 48).instances.ravel(), minlength=2)[1:] / 48**2
        assert shares[0] > 0.02
        assert shares[0] == shares.max()


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_things_cover_a_useful_share(domain: str) -> None:
    shares, visible = [], []
    for index in range(40):
        scene = sample_scene(domain, "val", index)
        counts = np.bincount(
            render(scene, 48, 48).instances.ravel(), minlength=len(scene.things) + 1
        )
        share = counts[1:] / 48**2
        shares += share[share > 0].tolist()
        visible.append((share > 0.004).sum())
    assert 0.025 < np.mean(shares) < 0.07
    assert np.mean((np.array(shares) > 0.012) & (np.array(shares) < 0.17)) > 0.65
    assert 2.3 < np.mean(visible) < 5
