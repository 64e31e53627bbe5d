"""The labelling engine: what overlaps, what it costs beside bare library calls, and a plain loop.

    python benchmarks/bench_label_engine.py [--check] [--only a b c] [--images N] [--rounds N]

a. Engine time over the slowest stage's, with an expert that sleeps without the interpreter lock.
b. CPU time per image beside the experts' own (decode, encode, write, bookkeeping), three experts
   in one pass, over that of the library calls alone: decode once, encode and append to a tar each,
   in as many threads as there are processors. The same call takes more CPU time when another
   processor is busy, since they share caches and clock rate: bare calls in one thread would count
   that as the engine's overhead. The ratio to these is printed too, and is no claim.
c. The three ONNX experts on photographs, in one pass, against a plain loop that decodes, predicts
   and saves (PNG for class maps, .npy for the others) per expert, at the same batch size. The loop
   is what people write: one thread of its own, and sessions with onnxruntime's default settings,
   which run each network on all processors. It has less to do than the engine: an image is decoded
   once for each expert, but nothing is checked or hashed or brought to the disk, and depth and
   normals are written as they are. The engine gains by decoding once, by overlapping, and by how
   its experts call onnxruntime (the images of a batch side by side, one thread each). How much of
   it is not the last is printed as the ratio to the loop with the engine's own experts.

The last lines are `NAME: MEASURED (goal GOAL) ok|short`; with `--check` one that is short makes
the exit code 1. c needs `../shared/data` (see --data) and is left out without it.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from cliptex.experts.card import label_from_output, prepare
from cliptex.experts.load import CARDS
from cliptex.experts.onnx import OnnxExpert
from cliptex.experts.protocol import Expert, Prediction
from cliptex.labelling.engine import label_shards
from cliptex.labelling.options import LabelOptions
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image
from label_engine_data import SIZE, StandIn, made_images, smooth, stand_ins, write_shards

BATCH = 8
SLEEP = 0.04  # seconds per image that the sleeping expert takes
ONNX = ("deeplab_voc21", "nyu_depth", "nyu_normals")
ROOT = Path(__file__).resolve().parents[1]
LOOP_SUFFIX = {ClassMap: ".png", ScalarField: ".npy", UnitVector: ".npy"}


def overlap(shards: ImageTextShards, out: Path) -> float:
    """a: engine seconds over the sleeping expert's."""
    label = smooth(np.random.default_rng(0), 1, SIZE)[:, :, 0]
    expert = StandIn("sleeping", ScalarField("1/m"), label, SLEEP)
    start, cpu = time.perf_counter(), time.process_time()
    label_shards(shards, [expert], out, LabelOptions(batch_size=BATCH))
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"  engine {elapsed:.3f} s, the expert {expert.seconds:.3f} s, processors {cpu:.3f} s")
    return elapsed / expert.seconds


def engine_cpu(shards: ImageTextShards, out: Path) -> float:
    """CPU milliseconds per image of labelling with the three stand-ins, without theirs."""
    experts = stand_ins()
    start = time.process_time()
    label_shards(shards, experts, out, LabelOptions(batch_size=BATCH))
    used = time.process_time() - start - sum(expert.cpu for expert in experts)
    return 1e3 * used / len(shards)


def bare_cpu(shards: ImageTextShards, out: Path, threads: int) -> tuple[float, float, float]:
    """CPU milliseconds per image of decoding, encoding, and appending to a tar, calls alone."""
    experts = stand_ins()
    out.mkdir(parents=True)

    def work(thread: int) -> np.ndarray:
        times = np.zeros(3)
        with ExitStack() as stack:
            names = [out / f"{expert.spec.name}-{thread}.tar" for expert in experts]
            tars = [stack.enter_context(tarfile.open(name, "w")) for name in names]
            for number in range(thread, len(shards), threads):
                sample = shards[number]
                start = time.thread_time()
                decode_image(sample.image)
                times[0] += time.thread_time() - start
                for expert, tar in zip(experts, tars, strict=True):
                    start = time.thread_time()
                    data = expert.spec.kind.encode(expert.label).png
                    middle = time.thread_time()
                    info = tarfile.TarInfo(f"{sample.key}.png")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    times[1:] += middle - start, time.thread_time() - middle
        return times

    with ThreadPoolExecutor(threads) as pool:
        total = np.sum(list(pool.map(work, range(threads))), axis=0)
    decoding, encoding, writing = (1e3 * total / len(shards)).tolist()
    return decoding, encoding, writing


def overhead(shards: ImageTextShards, out: Path, rounds: int) -> float:
    """b: median over interleaved rounds of engine CPU over bare calls' CPU."""
    threads = len(os.sched_getaffinity(0))
    ratios: list[tuple[float, float]] = []  # to the calls in all threads, in one
    for number in range(rounds + 1):
        parts = bare_cpu(shards, out / f"bare-{number}", threads)
        alone = bare_cpu(shards, out / f"alone-{number}", 1)
        engine = engine_cpu(shards, out / f"engine-{number}")
        ratios.append((engine / sum(parts), engine / sum(alone)))
        text = "decode {:.2f} + encode {:.2f} + write {:.2f}".format(*parts)
        print(f"  engine {engine:.2f} CPU-ms an image; bare calls {text} = {sum(parts):.2f}")
    ours, single = (statistics.median(column) for column in zip(*ratios[1:], strict=True))
    print(f"  over bare calls in one thread: {single:.2f}")  # the first round warms up
    return ours


def plain_loop(shards: ImageTextShards, expert: Expert, out: Path) -> None:
    """What people write: decode, predict, save, expert by expert."""
    out.mkdir(parents=True)
    suffix = LOOP_SUFFIX[type(expert.spec.kind)]
    for first in range(0, len(shards), BATCH):
        samples = [shards[i] for i in range(first, min(first + BATCH, len(shards)))]
        images = [np.asarray(Image.open(io.BytesIO(s.image)).convert("RGB")) for s in samples]
        for sample, prediction in zip(samples, expert.predict(images), strict=True):
            if suffix == ".png":
                Image.fromarray(prediction.label).save(out / f"{sample.key}.png")
            else:
                np.save(out / f"{sample.key}.npy", prediction.label)


def photographs(data: Path, count: int) -> Iterator[bytes]:
    """The first photographs of flickr8k-mini by name."""
    for path in sorted((data / "flickr8k-mini" / "images").glob("*.jpg"))[:count]:
        yield path.read_bytes()


class PlainSession:
    """A card's model as people call onnxruntime: whole batches, all threads, default settings.

    What comes before and after the network is the same as in the engine's expert.
    """

    def __init__(self, expert: OnnxExpert, model: Path) -> None:
        self.spec, self.card = expert.spec, expert.card
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        prepared = [prepare(image, self.card.input) for image in images]
        name = self.session.get_inputs()[0].name
        wanted = self.card.output_name or self.session.get_outputs()[0].name
        size = 1 if self.card.input.fixed_batch else len(images)
        outputs: list[np.ndarray] = []
        for first in range(0, len(images), size):
            batch = np.stack([item.tensor for item in prepared[first : first + size]])
            outputs.extend(np.asarray(self.session.run([wanted], {name: batch})[0]))
        pairs = zip(outputs, prepared, strict=True)
        return [Prediction(label_from_output(x, self.card.output, item)) for x, item in pairs]


def against_loop(shards: ImageTextShards, weights: Path, out: Path, rounds: int) -> float:
    """c: median over rounds of the plain loop's seconds over the engine's, models loaded before.

    Each round also times the loop with the engine's own experts: what is left then is decoding
    once and the overlap, against the encoding.
    """
    experts = [OnnxExpert(CARDS / f"{name}.yaml", weights) for name in ONNX]
    plain = [PlainSession(e, weights / e.card.file) for e in experts]
    for expert in (*plain, *experts):  # the first call of a session allocates its memory
        expert.predict([decode_image(shards[i].image) for i in range(BATCH)])

    def loop(folder: Path) -> None:
        for expert in plain:
            plain_loop(shards, expert, folder / expert.spec.name)

    def engine(folder: Path) -> None:
        label_shards(shards, experts, folder, LabelOptions(batch_size=BATCH))

    def own_experts(folder: Path) -> None:
        for expert in experts:
            plain_loop(shards, expert, folder / expert.spec.name)

    ratios: list[tuple[float, float]] = []
    for number in range(rounds):
        took = {
            run.__name__: seconds(run, out / f"{run.__name__}-{number}")
            for run in (loop, engine, own_experts)
        }
        ratios.append((took["loop"] / took["engine"], took["own_experts"] / took["engine"]))
        rates = ", ".join(f"{name} {len(shards) / s:.2f}" for name, s in took.items())
        print(f"  images/s with three experts: {rates}")
    plain_ratio, own_ratio = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"  over the loop with the engine's own experts: {own_ratio:.2f}")
    return plain_ratio


def seconds(run: Callable[[Path], None], folder: Path) -> float:
    """Seconds that one run takes."""
    start = time.perf_counter()
    run(folder)
    return time.perf_counter() - start


def report(name: str, measured: float, goal: float, *, at_least: bool) -> bool:
    """Print one claim's line; whether it holds."""
    good = measured >= goal if at_least else measured <= goal
    sign = ">=" if at_least else "<="
    print(f"{name}: {measured:.3g} (goal {sign} {goal:g}) {'ok' if good else 'short'}")
    return good


def measure(options: argparse.Namespace, folder: Path) -> list[tuple[str, float, float, bool]]:
    """(name, measured, goal, whether more is better) of each part asked for."""
    claims: list[tuple[str, float, float, bool]] = []
    made = write_shards(folder / "made", made_images(options.images))
    if "a" in options.only:
        print(f"a. overlap, {len(made)} images, {1e3 * SLEEP:g} ms an image:")
        claims.append(("engine over slowest stage", overlap(made, folder / "a"), 1.05, False))
    if "b" in options.only:
        print(f"b. CPU time, {len(made)} images, three experts:")
        ratio = overhead(made, folder / "b", options.rounds)
        claims.append(("engine CPU over bare calls", ratio, 1.15, False))
    if "c" in options.only:
        weights = options.data / "experts"
        if not all((weights / f"{name}.onnx").is_file() for name in ONNX):
            print(f"c. left out: {weights} does not hold the three ONNX models")
            return claims
        photos = write_shards(folder / "photos", photographs(options.data, options.photos))
        print(f"c. plain loop, {len(photos)} photographs, batches of {BATCH}:")
        ratio = against_loop(photos, weights, folder / "c", options.loop_rounds)
        claims.append(("engine over plain loop", ratio, 1.2, True))
    return claims


def main() -> None:
    """Measure what was asked for and print the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit 1 where a claim is short")
    parser.add_argument("--only", nargs="+", choices="abc", default=list("abc"))
    parser.add_argument("--images", type=int, default=256, help="made images, in a and b")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of b")
    parser.add_argument("--photos", type=int, default=200, help="photographs in c")
    parser.add_argument("--loop-rounds", type=int, default=1, help="rounds of c")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        claims = measure(options, Path(folder))
    holds = [report(name, got, goal, at_least=more) for name, got, goal, more in claims]
    sys.exit(options.check and not all(holds))


if __name__ == "__main__":
    main()
