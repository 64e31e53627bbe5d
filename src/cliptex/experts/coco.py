"""COCO's 80 object classes and the ids its annotations give them, which have gaps.

The ids run from 1 to 90 and leave out ten; detectors trained on the raw ids have 91 outputs, with
0 for background. Labels number the classes 1 to 80 in the order of the ids, 0 is background.
"""

from __future__ import annotations

import numpy as np

from cliptex.labels.kinds import ClassMap

SPARSE_IDS = 91  # outputs of a detector on raw ids: 0 to 90
MISSING_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake,
chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
COCO_NAMES = tuple(name.strip() for name in _NAMES.replace("\n", " ").split(","))
COCO_CLASSES = ClassMap(("background", *COCO_NAMES))


def contiguous_ids() -> np.ndarray:
    """Table (91,) int64 from a raw id to 1..80; 0 for background and for ids without a class."""
    table = np.zeros(SPARSE_IDS, dtype=np.int64)
    used = [number for number in range(1, SPARSE_IDS) if number not in MISSING_IDS]
    table[used] = np.arange(1, len(used) + 1)
    return table
