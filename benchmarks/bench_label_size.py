"""Bytes, error and time of every label codec on the ONNX experts' real outputs.

    python benchmarks/bench_label_size.py [--check] [--images N] [--data DIR]

Against float16 .npy and 4M's form (16-bit PNG depth, 8-bit RGB PNG normals, PNG classes). A row
shows the default codec's pixels as lossless WebP, decoded by way of a PNG without compression: what
leaving PNG would bring. The last lines are `NAME: MEASURED (goal GOAL) ok|short`: first of each
kind alone, which are there to be read, then of the three together, as one image is stored; with
`--check` one of the latter that is short exits 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.experts.load import load_expert
from cliptex.labels.kinds import ClassMap, Kind, ScalarField

ROOT = Path(__file__).resolve().parents[1]
EXPERTS = ("nyu_depth", "nyu_normals", "deeplab_voc21")
PHOTOGRAPHS = ("VOCdevkit/VOC2012/JPEGImages/*.jpg", "nyu-mini/normals/test/img/*.png")
MAX_SIDE = 512
DECODINGS = 5  # of each label; the fastest counts

Row = tuple[float, float, float, float, float]  # KiB, mean error, largest, encode ms, decode ms
Decoder = Callable[[bytes], np.ndarray]
Form = Callable[[Kind, np.ndarray], tuple[bytes, Decoder]]


def of_4m(kind: Kind, array: np.ndarray) -> tuple[bytes, Decoder]:
    """4M's form of a label without invalid pixels, and its decoder."""
    if isinstance(kind, ClassMap):
        return saved(array, "PNG"), pixels
    if isinstance(kind, ScalarField):
        low = float(array.min())
        span = (float(array.max()) - low) or 1.0
        codes = np.rint((array.astype(np.float64) - low) / span * 65535).astype(np.uint16)
        step = np.float32(span / 65535)
        return saved(codes, "PNG"), lambda data: pixels(data) * step + np.float32(low)

    def normalised(data: bytes) -> np.ndarray:
        vectors = pixels(data).astype(np.float32) / np.float32(127.5) - 1
        return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)

    codes = np.rint((array + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return saved(codes, "PNG"), normalised


def float16(kind: Kind, array: np.ndarray) -> tuple[bytes, Decoder]:
    """`numpy.save` of half precision, or of class ids."""
    buffer = io.BytesIO()
    np.save(buffer, array if isinstance(kind, ClassMap) else array.astype(np.float16))
    return buffer.getvalue(), lambda data: np.load(io.BytesIO(data))


def ours(name: str) -> Form:
    """One of the store's codecs."""

    def form(kind: Kind, array: np.ndarray) -> tuple[bytes, Decoder]:
        encoded = kind.encode(array, name)
        return encoded.png, lambda data: kind.decode(data, encoded.meta, name)

    return form


def webp(kind: Kind, array: np.ndarray) -> tuple[bytes, Decoder]:
    """The default codec's planes as channels of a lossless WebP; decodes what the PNG decodes."""
    encoded = kind.encode(array)
    planes = pixels(encoded.png)
    one = isinstance(kind, ClassMap)
    first, second = (planes, np.zeros_like(planes)) if one else np.split(planes, 2)
    rgb = np.stack([np.zeros_like(first), second, first], axis=2)
    data = saved(rgb, "WEBP", lossless=True, method=4)

    def back(data: bytes) -> np.ndarray:
        found = pixels(data)
        pair = found[:, :, 2] if one else np.concatenate([found[:, :, 2], found[:, :, 1]])
        return kind.decode(saved(pair, "PNG", compress_level=0), encoded.meta)

    return data, back


def saved(array: np.ndarray, encoding: str, **options: object) -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, encoding, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """A picture's pixels."""
    return np.asarray(Image.open(io.BytesIO(data)))


def errors(kind: Kind, array: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Percent of the range, degrees, or percent of pixels that differ; per pixel."""
    if isinstance(kind, ClassMap):
        return 100.0 * (array != back)
    if isinstance(kind, ScalarField):
        return 100 * np.abs(back.astype(np.float64) - array) / (float(np.ptp(array)) or 1)
    half = np.linalg.norm(array.astype(np.float64) - back, axis=2) / 2
    return np.degrees(2 * np.arcsin(half.clip(0, 1)))


def measure(kind: Kind, arrays: list[np.ndarray]) -> dict[str, Row]:
    """Every form of one kind, label by label in alternation, so that load falls on all alike."""
    forms: dict[str, Form] = {"float16 .npy": float16, "4M": of_4m}
    forms |= {name: ours(name) for name in kind.codecs} | {"(as lossless WebP)": webp}
    found: dict[str, list[Row]] = {name: [] for name in forms}
    for array in arrays:
        for name, form in forms.items():
            found[name].append(one_label(form, kind, array))
    return {name: summary(rows) for name, rows in found.items()}


def one_label(form: Form, kind: Kind, array: np.ndarray) -> Row:
    """Size, error and CPU time of one label."""
    start = time.process_time()
    data, back = form(kind, array)
    encoding = time.process_time() - start
    decoding = float("inf")
    for _ in range(DECODINGS):
        start = time.process_time()
        decoded = back(data)
        decoding = min(decoding, time.process_time() - start)
    gap = errors(kind, array, decoded)
    return len(data) / 1024, float(gap.mean()), float(gap.max()), 1e3 * encoding, 1e3 * decoding


def summary(rows: list[Row]) -> Row:
    """Means over the labels, but the largest of the largest errors."""
    size, mean, _, encoding, decoding = (float(x) for x in np.mean(rows, axis=0))
    return size, mean, max(row[2] for row in rows), encoding, decoding


def predictions(data: Path, name: str, count: int) -> tuple[Kind, list[np.ndarray]]:
    """An expert's labels at the stored resolution, of evenly spaced photographs of each source."""
    expert = load_expert(name, data / "experts")
    kind, labels = expert.spec.kind, []
    for pattern in PHOTOGRAPHS:
        paths = sorted(data.glob(pattern))
        for number in np.linspace(0, len(paths) - 1, count // len(PHOTOGRAPHS)).round().astype(int):
            image = np.asarray(Image.open(paths[number]).convert("RGB"))
            labels.append(kind.fit(kind.check(expert.predict([image])[0].label), MAX_SIDE))
    if not all(kind.valid(label).all() for label in labels):
        sys.exit(f"{name} gives invalid pixels, which 4M's form cannot hold")
    return kind, labels


def report(name: str, measured: float, goal: float) -> bool:
    """Print one claim's line; whether it holds."""
    good = measured <= goal
    print(f"{name}: {measured:.3g} (goal <= {goal:g}) {'ok' if good else 'short'}")
    return good


def part(data: Path, expert: str, count: int) -> tuple[Row, Row]:
    """Measure and print one expert's labels; the rows of the default codec and of 4M's form."""
    kind, labels = predictions(data, expert, count)
    shapes = sorted({label.shape[:2] for label in labels}, key=lambda s: s[0] * s[1])
    rows = measure(kind, labels)
    unit = {"class-map": "% of pixels", "scalar-field": "% of range", "unit-vector": "degrees"}
    print(f"{expert}, {shapes[0]} to {shapes[-1]}, errors in {unit[kind.to_json()['kind']]}:")
    for name, row in rows.items():
        print(f"  {name:19s}" + "".join(f"{value:9.3f}" for value in row))
    default, four = rows[kind.default_codec], rows["4M"]
    return default, four


def main() -> None:
    """Measure all codecs and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--images", type=int, default=24, help="photographs, half of each source")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    needed = [f"experts/{name}.onnx" for name in EXPERTS] + list(PHOTOGRAPHS)
    absent = [pattern for pattern in needed if not any(options.data.glob(pattern))]
    if absent or options.images < len(PHOTOGRAPHS):
        sys.exit(
            f"{options.data} lacks {absent[:1]}, or fewer than 2 images: give --data, --images"
        )
    print(f"{options.images} labels each: KiB, error mean and largest, CPU ms to encode and decode")
    parts = [part(options.data, name, options.images) for name in EXPERTS]
    for name, (mine, theirs) in zip(EXPERTS, parts, strict=True):
        report(f"{name}, bytes / 4M's", mine[0] / theirs[0], 0.5)
        report(f"{name}, decode time / 4M's", mine[4] / theirs[4], 1.0)
    default = [rows[0] for rows in parts]
    four = [rows[1] for rows in parts]
    sums = np.sum(default, axis=0) / np.sum(four, axis=0)
    holds = [
        report("bytes / 4M's", sums[0], 0.5),
        report("decode time / 4M's", sums[4], 1.0),
        report("depth error, mean % of range", default[0][1], 0.03),
        report("depth error, largest % of range", default[0][2], 0.1),
        report("normals error, mean degrees", default[1][1], 0.5),
    ]
    sys.exit(options.check and not all(holds))


if __name__ == "__main__":
    main()
