"""Many probes on one encoder pass against one probe per pass, and against stored features.

    python benchmarks/bench_probes.py [--check] [--part a|b|c]... [--solo N] [--results FILE]

ViT-B/16 (random weights, float32) at 224 pixels, 64 made-up pictures of 375x500 with 21 classes,
3 epochs in batches of 32, random crops; heads at full size (512 channels).

a   nine linear heads (3 seeds x 3 rates) in one group against nine runs of one. `--solo N` times N
    of the nine and takes their mean for the others. Weights are compared bit by bit.
b   {linear, DeepLabv3, PSPNet} x 3 rates in one group against its bound: the encoder passes alone
    plus the heads' steps alone, on maps that are ready.
c   the nine linear heads on stored float16 features against one encoder pass per epoch, both
    without augmentation; the bound of the former is the heads' steps alone, of as many epochs.

`--results` keeps the parts' numbers in a JSON file, so that parts may run at different times. The
last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes the
exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from cliptex.datasets.protocol import DenseItem
from cliptex.labels.kinds import ClassMap
from cliptex.models.clip import load_clip
from cliptex.models.config import HEAD_NAMES
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes import FeatureStore, GroupConfig, Schedule, Storage
from cliptex.probes.augment import CropAugmentation
from cliptex.probes.heads import LiveSource, MapLearner, ProbeGroup
from cliptex.probes.method import Batch, HeadKey
from cliptex.probes.task import MapSplit
from cliptex.probes.train import train_heads

IMAGES, SIDE = 64, 224
ROWS = range(IMAGES)
CROPS = CropAugmentation(short_side=(224, 336))
RATES = (1e-4, 3e-4, 1e-3)
Numbers = dict[str, float]


class Noise:
    """Pictures of noise with blocks of classes."""

    name, kind = "noise", ClassMap(classes=tuple(f"class {i}" for i in range(21)))

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> DenseItem:
        rng = np.random.default_rng(index)
        ids = rng.integers(0, 21, (15, 20)).astype(np.uint8).repeat(25, 0).repeat(25, 1)
        return DenseItem(rng.integers(0, 256, (375, 500, 3), dtype=np.uint8), ids)


def config(heads: Sequence[str], seeds: Sequence[int], **changes: object) -> GroupConfig:
    values = {
        "heads": tuple(heads),
        "schedule": Schedule(lr=RATES[0]),
        "learning_rates": RATES,
        "seeds": tuple(seeds),
        "epochs": 3,
        "resolution": SIDE,
        "augmentation": CROPS,
    }
    return GroupConfig.model_validate(values | changes)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def keys_of(settings: GroupConfig) -> list[HeadKey]:
    """Every head of the group."""
    pairs = [(head, seed) for head in settings.heads for seed in settings.seeds]
    return [HeadKey(head, rate, seed) for head, seed in pairs for rate in settings.rates]


def group_of(
    encoder: FrozenEncoder, settings: GroupConfig, store: FeatureStore | None = None
) -> ProbeGroup:
    """A probe group on the pictures."""
    split, storage = MapSplit(Noise(), settings), Storage(features=store)
    return ProbeGroup(encoder, split, settings, storage=storage, fingerprint="bench", label="group")


def trained(group: ProbeGroup, keys: Sequence[HeadKey]) -> tuple[list[MapLearner], float]:
    """Trained heads, and the seconds that their training took."""
    learners, batches = group.begin(keys, ROWS)
    return learners, timed(lambda: train_heads(learners, batches, group.config, label="group"))


def heads_alone(learners: Sequence[MapLearner], batches: Sequence[Batch], epochs: int) -> float:
    """Seconds of steps on maps that are ready."""

    def steps() -> None:
        for step, batch in enumerate([*batches] * epochs):
            for learner in learners:
                learner.learn(batch, 1.0, step)

    return timed(steps)


def encoder_alone(source: LiveSource, pictures: Sequence[Sequence[np.ndarray]]) -> float:
    """Seconds of one epoch of encoder passes on pictures that are ready."""
    return timed(lambda: [source.encode(batch) for batch in pictures])


def ready(group: ProbeGroup) -> list[Batch]:
    """The batches of the first epoch."""
    _, batches = group.begin([], ROWS)
    return list(islice(batches.stream(), batches.steps_per_epoch))


def same_bits(one: MapLearner, other: MapLearner) -> bool:
    theirs = other.module.state_dict()
    return all(torch.equal(t, theirs[name]) for name, t in one.module.state_dict().items())


def part_a(encoder: FrozenEncoder, solo: int) -> Numbers:
    settings = config(["linear"], (0, 1, 2))
    group = group_of(encoder, settings)
    learners, together = trained(group, keys_of(settings))
    # Along the diagonal of rates and seeds first, so that few runs still cover all of both.
    order = sorted(range(9), key=lambda i: ((i // 3 - i) % 3, i))[:solo]
    seconds, equal = [], 0
    for index in order:
        (alone,), spent = trained(group, [learners[index].key])
        seconds.append(spent)
        equal += same_bits(alone, learners[index])
    print(f"a: one pass {together:.1f} s; {solo} of nine runs {[round(s, 1) for s in seconds]} s")
    print(f"a: {equal} of {solo} heads are bitwise those of their own runs")
    speedup = 9 * float(np.mean(seconds)) / together
    return {"speedup": speedup, "together": together, "unequal": float(solo - equal)}


def part_b(encoder: FrozenEncoder) -> Numbers:
    settings = config(HEAD_NAMES, (0,))
    group = group_of(encoder, settings)
    batches = ready(group)
    squares = [[group.train.plain(i)[0] for i in half] for half in (ROWS[:32], ROWS[32:])]
    fresh, _ = group.begin(keys_of(settings), ROWS)
    heads_alone(fresh, batches[:1], 1)  # optimizers' first step allocates their state
    heads = heads_alone(fresh, batches, settings.epochs)
    source = LiveSource(encoder, group.train, settings)
    passes = settings.epochs * encoder_alone(source, squares)
    del fresh
    _, together = trained(group, keys_of(settings))
    bound = passes + heads
    print(
        f"b: group {together:.1f} s; bound {bound:.1f} s = encoder {passes:.1f} + heads {heads:.1f}"
    )
    return {"share": bound / together, "together": together, "bound": bound}


def part_c(encoder: FrozenEncoder) -> Numbers:
    settings = config(["linear"], (0, 1, 2), augmentation=None)
    keys, epochs = keys_of(settings), settings.epochs
    live, one_pass = trained(group_of(encoder, settings), keys)
    with tempfile.TemporaryDirectory() as folder:
        group = group_of(encoder, settings, FeatureStore(Path(folder)))
        stored, cached = trained(group, keys)
        batches = ready(group)
        error = group.protocol(keys[0])["storage_error"]
        fresh, _ = group.begin(keys, ROWS)
    heads_alone(fresh, batches[:1], 1)
    bound = heads_alone(fresh, batches, epochs)
    maps = batches[0].features
    agree = [
        float((a.predict(maps)[0].argmax(1) == b.predict(maps)[0].argmax(1)).float().mean())
        for a, b in zip(live, stored, strict=True)
    ]
    print(
        f"c: epoch on stored features {cached / epochs:.2f} s, heads alone {bound / epochs:.2f} s"
    )
    print(f"c: epoch with its encoder pass {one_pass / epochs:.2f} s; storage error {error:.2e}")
    print(f"c: least share of cells with the same class, of nine heads: {min(agree):.4f}")
    ratio = one_pass / cached
    return {"ratio": ratio, "share": bound / cached, "agree": min(agree)}


def claims(found: dict[str, Numbers]) -> list[tuple[str, float, float]]:
    """(name, measured, least that is good enough) of the parts that were run."""
    lines = []
    if "a" in found:
        lines.append(("nine linear heads in one pass, times faster", found["a"]["speedup"], 6.0))
        lines.append(("share of heads equal to their own runs", 1 - found["a"]["unequal"], 1.0))
    if "b" in found:
        lines.append(("group's bound over its time", found["b"]["share"], 0.85))
    if "c" in found:
        lines.append(("stored features, times faster", found["c"]["ratio"], 1.0))
        lines.append(("cells with the same class on stored features", found["c"]["agree"], 0.99))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Probe groups, timed.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--part", action="append", choices=("a", "b", "c"))
    parser.add_argument("--solo", type=int, default=9)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    found: dict[str, Numbers] = {}
    if options.results and options.results.exists():
        found = json.loads(options.results.read_text())
    encoder = FrozenEncoder(load_clip("open_clip:ViT-B-16").image)
    parts = {"a": lambda: part_a(encoder, options.solo)}
    parts |= {"b": lambda: part_b(encoder), "c": lambda: part_c(encoder)}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in options.part or parts:
        found[name] = parts[name]()
        if options.results:
            options.results.write_text(json.dumps(found))
    short = 0
    for name, measured, goal in claims(found):
        good = measured >= goal
        short += not good
        print(f"{name}: {measured:.3g} (goal {goal:g}) {'ok' if good else 'short'}")
    return 1 if short and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
