"""Is a label store whole, does it fit its images, and would its expert say the same again?

Every shard costs one pass over its tar's bytes and one comparison of key arrays; a random sample
of labels is decoded, and some of them may be inferred anew. Nothing is looked up across shards,
so the cost per image does not grow with the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cliptex.console import track
from cliptex.experts.protocol import Expert, Prediction
from cliptex.files import AnyPath, exists, sha256_file
from cliptex.labelling.expert_worker import Predictor
from cliptex.labelling.stores import belongs, damage
from cliptex.labels.kinds import Tolerance
from cliptex.labels.ledger import Ledger, ledger_path
from cliptex.labels.reader import DamagedLabel, LabelReader
from cliptex.labels.writer import label_tar
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

SHOWN = 20  # problems that the text lists one by one
RELABEL = "remove {ledger} and run `cliptex label run` again: only this shard is labelled anew"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    file: AnyPath
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was looked at, and what is wrong.

    `shards` counts those of the images, `labelled` those with a readable ledger, `images` the
    ledger's lines in them, `lost` those of them without a label; `bytes_read` is what was hashed.
    `decoded` and `inferred` count the labels of the random samples.
    """

    folder: AnyPath
    expert: str
    shards: int
    labelled: int
    images: int
    lost: int
    bytes_read: int
    decoded: int
    inferred: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = (
            f"{self.expert}: {self.labelled} of {self.shards} shards, {self.images} images"
            f"{f' ({self.lost} without a label)' if self.lost else ''}, "
            f"{self.bytes_read / 2**20:.1f} MiB hashed, {self.decoded} labels decoded, "
            f"{self.inferred} inferred anew: "
            + ("nothing is wrong" if self.ok else f"{len(self.problems)} problems")
        )
        lines = [f"  {problem}" for problem in self.problems[:SHOWN]]
        more = len(self.problems) - len(lines)
        return "\n".join([head, *lines, *([f"  and {more} more"] if more else [])])


def verify_labels(
    shards: ImageTextShards,
    folder: AnyPath,
    *,
    sample: int = 0,
    expert: Expert | None = None,
    decode: int = 256,
    batch_size: int = 8,
    seed: int = 0,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 (frozen)
) -> VerifyReport:
    """Check `LABELS/EXPERT` against its ledgers and its images.

    Of every shard: the ledger's checksum, the label tar's size and sha256, and that it holds a
    line for each image, in the images' order. Of about `decode` images drawn by the seed: that
    their labels decode and are of their kind. Of `sample` more: that `expert` gives the same
    label again, within `tolerance`, asked for `batch_size` at once. A shard without labels is a
    problem too. Raises FileNotFoundError or ValueError where `folder` has no readable manifest,
    ValueError for a sample without an expert.
    """
    if sample and expert is None:
        raise ValueError("inferring a sample anew needs the expert that made the labels")
    reader = LabelReader(folder)
    problems = _store_problems(shards, reader)
    labelled: dict[str, Ledger] = {}
    sound: set[str] = set()
    hashed = 0
    for shard in track(shards.shards, label=f"verifying {reader.manifest.expert}"):
        ledger, found = _verify_shard(shards, reader, shard)
        problems += found
        if ledger is not None:
            labelled[shard] = ledger
            hashed += ledger.tar_size
            if not found:
                sound.add(shard)
    drawn = _draw(shards, labelled, sound, decode, np.random.default_rng([seed, 0]))
    problems += _decode_problems(reader, drawn)
    again = _draw(shards, labelled, sound, sample, np.random.default_rng([seed, 1]))
    if again and expert is not None:
        problems += _inference_problems(
            shards, reader, expert, again, tolerance=tolerance, batch_size=batch_size
        )
    reader.close()
    return VerifyReport(
        folder=reader.folder,
        expert=reader.manifest.expert,
        shards=len(shards.shards),
        labelled=len(labelled),
        images=sum(map(len, labelled.values())),
        lost=sum(len(ledger) - len(ledger.ok_keys()) for ledger in labelled.values()),
        bytes_read=hashed,
        decoded=len(drawn),
        inferred=len(again),
        problems=tuple(problems),
    )


def _store_problems(shards: ImageTextShards, reader: LabelReader) -> list[Problem]:
    """What is wrong with the store as a whole."""
    problems: list[Problem] = []
    for shard, why in damage(reader.folder, shards).items():
        remedy = "copy it anew, then run `cliptex label run` again"
        problems.append(Problem(shards.root / shard, f"damaged: {why}", remedy))
    if not belongs(reader.folder, shards):
        what = f"made for data set {reader.manifest.dataset_id}, these are {shards.dataset_id}"
        remedy = "verify with the shards that were labelled, or label these into another folder"
        problems.append(Problem(reader.folder / "manifest.json", what, remedy))
    for shard in sorted(set(reader.shards) - set(shards.shards) - shards.damaged.keys()):
        tar = label_tar(reader.folder, shard)
        what = f"{shards.root} has no shard {shard}"
        problems.append(Problem(tar, what, f"remove it and {ledger_path(tar).name}"))
    return problems


def _verify_shard(
    shards: ImageTextShards, reader: LabelReader, shard: str
) -> tuple[Ledger | None, list[Problem]]:
    tar = label_tar(reader.folder, shard)
    try:
        ledger = reader.ledger(shard)
    except ValueError as error:
        what, _, remedy = str(error).partition(". ")
        return None, [Problem(tar, what, remedy or RELABEL.format(ledger=ledger_path(tar)))]
    if ledger is None:
        what = "a tar without a ledger" if exists(tar) else "the shard has no labels yet"
        return None, [Problem(tar, what, "run `cliptex label run` again: it goes on from there")]
    found = [
        *_tar_problems(reader, shard, ledger),
        *_key_problems(shards.index(shard).names, ledger),
    ]
    remedy = RELABEL.format(ledger=ledger_path(tar))
    return ledger, [Problem(tar, what, remedy) for what in found]


def _concerned(reader: LabelReader, shard: str, ledger: Ledger) -> str:
    """Which labels of a changed tar are not what was written, where their checksums tell."""
    if not ledger.checked:
        return ""
    bad: list[str] = []
    for key in ledger.names():
        try:
            reader.read_encoded(shard, key, confidence=True)
        except DamagedLabel:
            bad.append(key)
    return f"; {len(bad)} labels are concerned, such as {bad[0]!r}" if bad else "; no label is"


def _tar_problems(reader: LabelReader, shard: str, ledger: Ledger) -> list[str]:
    tar = label_tar(reader.folder, shard)
    if not exists(tar):
        return ["it does not exist although it has a ledger"]
    size = tar.stat().st_size
    if size != ledger.tar_size:
        return [f"it has {size} bytes, its ledger says {ledger.tar_size}"]
    digest = sha256_file(tar)
    if digest != ledger.tar_sha256:
        concerned = _concerned(reader, shard, ledger)
        found = f"its sha256 is {digest[:16]}..., its ledger says {ledger.tar_sha256[:16]}..."
        return [f"{found}{concerned}"]
    for member in ("", "meta_", "confidence_"):
        ends = ledger.rows[f"{member}offset"] + ledger.rows[f"{member}size"]
        if len(ends) and ends.max() > size:
            return ["its ledger points beyond its end"]
    return []


def _key_problems(names: np.ndarray, ledger: Ledger) -> list[str]:
    """How the ledger's keys differ from `names` (n,), the images' keys in UTF-8."""
    if len(names) == len(ledger) and np.array_equal(names, ledger.keys):
        return []
    found: list[str] = []
    for text, keys in (
        ("has no line for {} images, such as {!r}", np.setdiff1d(names, ledger.keys)),
        ("has lines for {} keys without an image, such as {!r}", np.setdiff1d(ledger.keys, names)),
    ):
        if len(keys):
            found.append(
                "its ledger " + text.format(len(keys), bytes(keys[0]).decode("utf-8", "replace"))
            )
    if len(np.unique(ledger.keys)) < len(ledger):
        found.append("its ledger holds a key twice")
    return found or ["its ledger's keys are not in the order of the images"]


def _draw(
    shards: ImageTextShards,
    ledgers: dict[str, Ledger],
    sound: set[str],
    count: int,
    rng: np.random.Generator,
) -> list[tuple[str, str]]:
    """At most `count` labelled (shard, key) of the sound shards, each label equally likely.

    The shards' share of the draw follows their number of labels; within a shard rows are drawn.
    """
    ok = {s: np.flatnonzero(ledgers[s].rows["status"] == 0) for s in shards.shards if s in sound}
    starts = np.cumsum([0, *map(len, ok.values())])
    total = int(starts[-1])
    chosen = np.sort(rng.choice(total, min(count, total), replace=False)) if total else []
    names = list(ok)
    drawn: list[tuple[str, str]] = []
    for number in chosen:
        place = int(np.searchsorted(starts, number, side="right")) - 1
        row = ok[names[place]][number - starts[place]]
        key = bytes(ledgers[names[place]].keys[row])
        drawn.append((names[place], key.decode("utf-8", "surrogateescape")))
    return drawn


def _decode_problems(reader: LabelReader, drawn: Iterable[tuple[str, str]]) -> list[Problem]:
    """Labels that do not decode or are not of their kind; one problem a shard."""
    bad: dict[str, list[str]] = defaultdict(list)
    for shard, key in drawn:
        try:
            stored = reader.read(shard, key, confidence=True)
            assert stored is not None  # the ledger said ok
            reader.kind.check(stored.array)
            if stored.instances is not None:
                reader.kind.check_instances(stored.instances)
        except ValueError as error:
            bad[shard].append(f"{key!r} ({error})")
    return [_label_problem(reader, shard, "unreadable labels", keys) for shard, keys in bad.items()]


def _inference_problems(
    shards: ImageTextShards,
    reader: LabelReader,
    expert: Expert,
    drawn: list[tuple[str, str]],
    *,
    tolerance: Tolerance,
    batch_size: int,
) -> list[Problem]:
    """Labels that the expert would not give again; nothing is inferred where it is another one."""
    manifest = reader.manifest
    spec = expert.spec
    if (spec.kind, spec.weights_sha256) != (reader.kind, manifest.weights_sha256):
        what = f"made by {manifest.expert} with weights {manifest.weights_sha256[:16] or 'unknown'}"
        remedy = f"verify with that expert, not {spec.name} ({spec.weights_sha256[:16]})"
        return [Problem(reader.folder / "manifest.json", what, remedy)]
    bad = _disagreements(shards, reader, expert, drawn, tolerance=tolerance, batch_size=batch_size)
    what = "labels that the expert does not give again"
    return [_label_problem(reader, shard, what, keys) for shard, keys in bad.items()]


def _disagreements(
    shards: ImageTextShards,
    reader: LabelReader,
    expert: Expert,
    drawn: list[tuple[str, str]],
    *,
    tolerance: Tolerance,
    batch_size: int,
) -> dict[str, list[str]]:
    """The drawn labels that the expert does not give again: key and reason, by shard.

    `drawn` are (shard, key) that have a label; `expert` is of the labels' kind.
    """
    bad: dict[str, list[str]] = defaultdict(list)
    fresh = _predicted(shards, Predictor(expert, batch_size), drawn)
    label = f"inferring with {expert.spec.name}"
    for shard, key, answer in track(fresh, label=label, total=len(drawn)):
        if isinstance(answer, str):
            error = answer
        else:
            error = _disagreement(reader, shard, key, answer, tolerance)
        if error:
            bad[shard].append(f"{key!r} ({error})")
    return bad


def _predicted(
    shards: ImageTextShards, predictor: Predictor, drawn: list[tuple[str, str]]
) -> Iterator[tuple[str, str, Prediction | str]]:
    """(shard, key, prediction, or why there is none) of the drawn images, a batch at a time."""
    size = predictor.limit
    for start in range(0, len(drawn), size):
        images: dict[tuple[str, str], np.ndarray] = {}
        for place in drawn[start : start + size]:
            try:
                images[place] = decode_image(shards.read_image(*place))
            except ImageError as reason:
                yield *place, f"labelled, but its image does not decode: {reason}"
        answers = predictor.predict(list(images.values()))
        for place, answer in zip(images, answers, strict=True):
            yield *place, f"now {answer}" if isinstance(answer, str) else answer


def _disagreement(
    reader: LabelReader, shard: str, key: str, answer: Prediction, tolerance: Tolerance
) -> str:
    """Why a fresh prediction's label is not the stored one, or an empty string."""
    kind, stored = reader.kind, reader.read(shard, key)
    assert stored is not None  # the ledger said ok
    try:
        fresh = kind.fit(kind.check(answer.label), reader.manifest.max_side)
    except ValueError as error:
        return f"now {error}"
    if fresh.shape != stored.array.shape:
        return f"stored as {stored.array.shape}, now {fresh.shape}"
    found = kind.difference(stored.array, fresh)
    return "" if kind.within(found, tolerance.of_stored()) else kind.describe(found)


def _label_problem(reader: LabelReader, shard: str, what: str, keys: list[str]) -> Problem:
    tar = label_tar(reader.folder, shard)
    remedy = RELABEL.format(ledger=ledger_path(tar))
    return Problem(tar, f"{len(keys)} {what}, such as {keys[0]}", remedy)
