"""`cliptex datasets`: is a benchmark whole, and do training pictures show up in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg, Checked, Compared
from cliptex.cli.help import verb
from cliptex.cli.rows import check_writable

if TYPE_CHECKING:
    from cliptex.datasets.overlap import Overlap

SHOWN = 10  # pairs printed where no file is asked for


@verb(
    "cliptex datasets check runs/demo/home/VOCdevkit",
    "cliptex datasets check ADEChallengeData2016 --kind ade20k --decode",
)
def check(path: Positional[Path], /, kind: Checked | None = None, decode: bool = False) -> None:
    """Recognise the layout of a benchmark, count its splits, and list what is missing.

    Fails where an essential file is missing or does not decode. Fewer pictures than the release
    has are reported, but are no failure: parts of a benchmark are useful.

    Args:
        path: folder of the benchmark as unpacked, or a Karpathy JSON.
        kind: check this layout; by default all that are recognised.
        decode: also read every picture with its mask, depth or normals, and list those that are
            broken, at which a probe would stop. Takes hours for ImageNet.
    """
    from cliptex.datasets.check import check_dataset

    reports = check_dataset(path, kind, decode=decode)
    for report in reports:
        print(report)
    bad = [report.kind for report in reports if not report.ok]
    if bad:
        raise ValueError(f"{path}: {', '.join(bad)} incomplete or broken, see above")


@verb(
    "cliptex datasets overlap --data runs/demo/web/shards --dataset voc"
    " --root runs/demo/home/VOCdevkit --out overlap.jsonl",
    "cliptex datasets overlap --data shards --dataset folder --root imagenet"
    " --pairs pairs.jsonl --out overlap.jsonl",
)
def overlap(
    data: AnyPathArg,
    dataset: Compared,
    root: Path,
    out: Path,
    split: str | None = None,
    images: Path | None = None,
    threshold: int = 12,
    mirrored: bool = True,
    name: str | None = None,
    pairs: Path | None = None,
) -> None:
    """Find near-duplicates between training shards and a benchmark, by perceptual hash.

    Args:
        data: image-text shards that models are trained on.
        dataset: layout of the benchmark, as in docs/datasets.md.
        root: where the benchmark lies.
        out: results file (JSON lines) to append the row to: percent of test pictures.
        split: split of the benchmark that is compared; by default the one that is usually scored.
        images: folder of the images of a Karpathy JSON; by default one beside the JSON.
        threshold: number of the 128 bits in which near-duplicates may differ.
        mirrored: also look for mirror images.
        name: name of the training data in the report; by default that of its folder.
        pairs: file to write with one JSON line per pair; an earlier one is replaced.
    """
    check_writable(out)
    if pairs is not None:
        _check_pairs(pairs, out)
    from cliptex.datasets.catalogue import open_dataset, usual_splits
    from cliptex.datasets.overlap import find_overlap, overlap_row
    from cliptex.results import append_results
    from cliptex.shards.dataset import ImageTextShards

    scored = split or usual_splits(dataset, root)[1]
    test = open_dataset(dataset, root, scored, images)
    found = find_overlap(ImageTextShards(data), test, threshold=threshold, mirrored=mirrored)
    training = name or data.name
    row = overlap_row(found, test, training=training, threshold=threshold, mirrored=mirrored)
    _show(found, f"pictures of {test.name}", training, pairs)
    append_results(out, [row])
    print(out)


def _check_pairs(pairs: Path, out: Path) -> None:
    """ValueError or OSError where the pairs could not be written, or would replace rows."""
    from cliptex.results import holds_rows

    if pairs.resolve() == out.resolve():
        raise ValueError(f"--pairs {pairs}: the row goes there (--out); name another file")
    if pairs.exists() and holds_rows(pairs):
        raise ValueError(f"--pairs {pairs}: holds result rows, which pairs would replace")


def _show(found: Overlap, pictures: str, training: str, pairs: Path | None) -> None:
    """Print shares and the first pairs, or write all pairs to a file."""
    import json
    from dataclasses import asdict

    from cliptex.files import write_atomic

    count = len({pair.index for pair in found.pairs})
    print(f"{count} of {found.test} {pictures} ({found.share:.2f} %) are in {training}")
    print(f"{len(found.pairs)} pairs; {found.training} training pictures, {found.unread} unread")
    lines = [f"{json.dumps(asdict(pair))}\n" for pair in found.pairs]
    if pairs is None:
        print("".join(lines[:SHOWN]), end="")
    else:
        write_atomic(pairs, "".join(lines).encode())
        print(pairs)
