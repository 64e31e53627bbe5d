"""One training step of each of the paper's probes at its own size: time and peak memory.

    python benchmarks/bench_probe_steps.py [--steps N] [--batch N] [--threads N]

ViT-B/16 (random weights, float32) sees made-up pictures of 512x512; heads, losses, optimisers and
(without --batch) batches are Table 8's, with 21 classes for the dense heads and 81 for the
detectors. A step is reading, the encoder's pass, and the head's forward, backward and update; the
first one, which also builds the model, is left out. In brackets: seconds of all processors, which
other work disturbs less. Every probe runs in a process of its own, whose largest resident size is
printed. Mask R-CNN's pictures hold 8 objects; its 2000 proposals and 512 boxes are the paper's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from cliptex.datasets.protocol import DenseItem, DetectionItem
from cliptex.labels.kinds import ClassMap
from cliptex.models.clip import load_clip
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes import Storage, paper
from cliptex.probes.config import ProbeConfig
from cliptex.probes.method import HeadKey
from cliptex.probes.recipes import paper_mask_rcnn, paper_ssd
from cliptex.probes.train import METHODS

MODEL, SIDE, IMAGES, OBJECTS = "open_clip:ViT-B-16", 512, 256, 8
Times = tuple[float, float]
DENSE, DETECTION = ("linear", "deeplabv3", "pspnet"), ("mask_rcnn", "ssd")


class Noise:
    """Pictures of noise: with blocks of 21 classes, and with boxes of 80."""

    name, kind = "noise", ClassMap(classes=tuple(f"class {i}" for i in range(21)))
    classes = tuple(f"thing {i}" for i in range(80))
    category_ids = image_ids = tuple(range(80))

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> DenseItem:
        ids = np.random.default_rng(index).integers(0, 21, (16, 16)).astype(np.uint8)
        return DenseItem(self._image(index), ids.repeat(32, 0).repeat(32, 1))

    def item(self, index: int, *, masks: bool) -> DetectionItem:
        rng = np.random.default_rng(index)
        corner, size = rng.integers(0, 300, (OBJECTS, 2)), rng.integers(40, 200, (OBJECTS, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        planes = np.zeros((OBJECTS, SIDE, SIDE), np.uint8)
        for plane, (left, top, right, bottom) in zip(planes, boxes, strict=True):
            plane[top:bottom, left:right] = 1
        labels = rng.integers(1, 81, OBJECTS)
        found = boxes.astype(np.float32), labels
        return DetectionItem(self._image(index), *found, planes if masks else None)

    def with_objects(self) -> list[int]:
        return list(range(IMAGES))

    def ground_truth(self, indices: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        raise NotImplementedError  # nothing is scored here

    def _image(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def config_of(head: str) -> ProbeConfig:
    """Table 8's column; of a detector at the side of the pictures."""
    if head in DENSE:
        return paper("segmentation", (head,))
    base = paper_mask_rcnn() if head == "mask_rcnn" else paper_ssd()
    return base.model_copy(update={"resolution": SIDE, "train_sizes": ()})


def steps_of(head: str, batch: int | None) -> Iterator[int]:
    """Train a head, a step whenever the next item is asked for; gives the batch's size."""
    base = config_of(head)
    config = base.model_copy(update={"batch_size": batch or base.batch_size})
    kind, encoder = METHODS[type(config)], FrozenEncoder(load_clip(MODEL).image)
    split = kind.split_of(Noise(), config)
    method = kind(encoder, split, config, storage=Storage(), fingerprint="", label=head)
    (learner,), batches = method.begin([HeadKey(head, config.rates[0], 0)], range(IMAGES))
    for number, features in enumerate(batches.stream()):
        learner.learn(features, 1.0, number)
        if learner.finish().diverged:
            raise RuntimeError(f"{head}: the loss of step {number} is not finite")
        yield config.batch_size


def measured(
    head: str, batch: int | None, steps: int, threads: int
) -> tuple[int, list[Times], float]:
    """The batch's size, seconds and processor seconds of every step, and peak memory in GiB."""
    torch.set_num_threads(threads)
    stream = steps_of(head, batch)
    size, seconds = 0, []
    for _ in range(steps):
        start, used = time.perf_counter(), time.process_time()
        size = next(stream)
        seconds.append((time.perf_counter() - start, time.process_time() - used))
    return size, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, help="pictures per step (default: Table 8's)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.threads} threads, {MODEL} at {SIDE}", flush=True)
    context = multiprocessing.get_context("spawn")
    for head in (*DENSE, *DETECTION):
        with context.Pool(1) as pool:
            work = (head, options.batch, options.steps, options.threads)
            size, seconds, memory = pool.apply(measured, work)
        later = ", ".join(f"{wall:.1f} s ({used:.1f})" for wall, used in seconds[1:])
        print(f"{head:10} batch {size}: {later}; peak {memory:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
