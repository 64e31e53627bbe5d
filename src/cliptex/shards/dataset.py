"""A folder of image-text tars as a sequence of samples that can be read in any order."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cliptex.console import say, track
from cliptex.files import (
    AnyPath,
    OpenFiles,
    RandomFile,
    Stamp,
    as_path,
    is_local,
    most_open,
    open_random,
    own,
    stamp,
    walk,
)
from cliptex.shards.captions import CaptionError, clean_captions, decode_caption, json_captions
from cliptex.shards.index import (
    MISSING,
    TEXT_EXTENSIONS,
    IndexHead,
    ShardIndex,
    cached_head,
    cached_index,
    index_shard,
    keep_index,
)
from cliptex.shards.problems import stats_problem, summary

OnDamaged = Literal["raise", "leave out", "keep"]

_WORTH_A_BAR = 16  # shards to scan before progress is shown
_COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image-text pair.

    Attributes:
        shard: the shard's path relative to the root, with forward slashes.
        key: the sample's key within the shard.
        image: the image file's bytes as they are in the shard.
        text: the cleaned captions, one per line; "" where there is none.
    """

    shard: str
    key: str
    image: bytes
    text: str

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions one by one; () where there is none."""
        return tuple(self.text.splitlines())


class ImageTextShards:
    """WebDataset tars read as they are, at random, by (shard, key) or by number.

    Samples are numbered through all shards in the order of `shards`, within a shard in the order
    of the tar. Of a shard that was indexed before, opening reads the index's head alone. The
    object may be pickled and forked; files are opened where they are read.

    Args:
        root: a folder searched recursively for *.tar, or one tar; local, or a URL that fsspec
            knows (s3://, hf://, https://). Remote shards are read by range requests.
        cache: a local folder for the index; by default `$XDG_CACHE_HOME/cliptex/index`. A shard
            is scanned again when its size or its tag or time of change differs.
        on_damaged: what to do where shards are damaged (see `ShardIndex.damage`): "raise" an
            error that names them, "leave out" the whole shards, or "keep" the samples that are
            whole.
        caption_key: the field of KEY.json that holds the captions, and no other member then
            does. By default captions are those of KEY.txt, else KEY.text, else KEY.caption, else
            the first of `CAPTION_FIELDS` in KEY.json.

    What is odd and no damage (members that belong to no sample, several images of a key, a tar
    without its end) is counted on standard error, unless it is kept for `cliptex shards check`.

    Attributes:
        damaged: path of each damaged shard, as in `shards`, and why.

    Raises:
        FileNotFoundError: there is no such folder, or no tar in it.
        ValueError: a tar is compressed or damaged, or all are damaged, or all are empty.
    """

    def __init__(
        self,
        root: str | AnyPath,
        *,
        cache: Path | None = None,
        on_damaged: OnDamaged = "raise",
        caption_key: str | None = None,
    ) -> None:
        self.caption_key = caption_key
        self.root, found = find_shards(as_path(root))
        self.cache = cache if cache is not None else default_cache()
        self.damaged: dict[str, str] = {}
        self._files = OpenFiles(most_open(self.root))
        self._stamps = {name: self._known_stamp(name, known) for name, known in found.items()}
        self._indices: dict[str, ShardIndex] = {}
        self._fresh: set[str] = set()  # shards that were indexed now
        self._unkept: set[str] = set()  # shards whose index is in memory alone
        self._heads: dict[str, IndexHead] = {}
        self._load_heads()
        self._judge(on_damaged)
        self._claims = self._read_claims(all_of_them=on_damaged == "keep")
        if on_damaged != "keep":
            self._tell()
        self.shards = tuple(self._heads)
        counts = (head.count for head in self._heads.values())
        self._starts = [0, *accumulate(counts)]  # number of each shard's first sample, then of all

    def _known_stamp(self, shard: str, known: Stamp | None) -> Stamp:
        return known if known is not None else stamp(self.root / shard)

    def _load_heads(self) -> None:
        heads = {
            shard: cached_head(self.root / shard, version, self.cache)
            for shard, version in self._stamps.items()
        }
        unknown = [shard for shard, head in heads.items() if head is None]
        if any(not self._stamps[shard].version for shard in unknown):
            say(
                f"{self.root} gives neither version tags nor modification times: a shard that "
                "changes and keeps its size will not be noticed"
            )
        steps = track(unknown, label="indexing") if len(unknown) >= _WORTH_A_BAR else unknown
        for shard in steps:
            heads[shard] = self._scan(shard)
        self._heads = {shard: head for shard, head in heads.items() if head is not None}

    def _scan(self, shard: str) -> IndexHead | None:
        """Index a shard anew; None, and a line in `damaged`, where nothing in it can be read."""
        path = self.root / shard
        try:
            index = index_shard(path)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and not is_local(path):
                raise  # a fault of the network says nothing of the shard
            self.damaged[shard] = str(error).removeprefix(f"{path}: ")
            return None
        self._stamps[shard] = index.stamp
        self._fresh.add(shard)
        try:
            keep_index(path, index, self.cache)
        except OSError as error:  # the index is only a convenience: go on without keeping it
            say(f"the index of {shard} could not be saved in {self.cache}: {error}")
            self._unkept.add(shard)
            self._indices[shard] = index
        return IndexHead.of(index)

    def _judge(self, on_damaged: OnDamaged) -> None:
        """Fill `damaged`, and raise or leave out as asked."""
        cut = {shard: head.damage for shard, head in self._heads.items() if head.damage}
        self.damaged = dict(sorted({**self.damaged, **cut}.items()))
        if not self.damaged:
            return
        lines = "\n".join(f"  {self.root / shard}: {why}" for shard, why in self.damaged.items())
        total = len(self._stamps)
        found = f"{len(self.damaged)} of {total} shards are damaged:\n{lines}\n"
        if on_damaged == "leave out":
            self._heads = {s: h for s, h in self._heads.items() if s not in self.damaged}
        if on_damaged == "raise" or not self._heads:
            raise ValueError(
                f"{found}copy them again or move them elsewhere; ImageTextShards(..., "
                'on_damaged="leave out") goes on without them'
            )
        say(f"{found}{'left out' if on_damaged == 'leave out' else 'what is whole is kept'}")

    def _read_claims(self, all_of_them: bool) -> dict[str, str]:
        """What `NAME_stats.json` beside a shard says against it.

        Every opening reads those of local shards, but of remote ones, where each is a request,
        only of those that are indexed anew, unless all are asked for.
        """
        shards = [s for s in self._heads if all_of_them or is_local(self.root) or s in self._fresh]
        told = {s: stats_problem(self.root / s, self._heads[s].count) for s in shards}
        return {shard: line for shard, line in told.items() if line}

    def problems(self, shard: str) -> tuple[str, ...]:
        """What is wrong or odd in a shard, lines "KIND: DETAIL" (see cliptex.shards.problems)."""
        claim = self._claims.get(shard)
        return self._heads[shard].problems + ((claim,) if claim else ())

    def _tell(self) -> None:
        """Say what is odd in the shards that are read; ValueError where none has a sample."""
        lines = summary({shard: self.problems(shard) for shard in self._heads})
        if not any(head.count for head in self._heads.values()):
            raise ValueError(f"{self.root}: no sample in {len(self._heads)} shards: {lines[0]}")
        for line in lines:
            say(f"{self.root}: {line}")

    @property
    def dataset_id(self) -> str:
        """32 hexadecimal digits from the shards' relative paths, sizes and keys."""
        digest = hashlib.sha256()
        for shard in self.shards:
            head = self._heads[shard]
            digest.update(f"{shard}\0{head.size}\0{head.digest}\n".encode())
        return digest.hexdigest()[:32]

    def index(self, shard: str) -> ShardIndex:
        """The places of a shard's samples, loaded when first asked for; KeyError without it."""
        index = self._indices.get(shard)
        if index is None:
            index = self._indices[shard] = self._load_index(shard)
        return index

    def _load_index(self, shard: str) -> ShardIndex:
        if shard not in self._heads:
            raise KeyError(f"{self.root} has no shard {shard!r}")
        index = cached_index(self.root / shard, self._stamps[shard], self.cache)
        if index is None:  # the cache was emptied meanwhile
            index = index_shard(own(self.root) / shard)
            if index.stamp != self._stamps[shard]:
                raise self._changed(shard)
        return index

    def _changed(self, shard: str) -> ValueError:
        return ValueError(
            f"{self.root / shard}: changed since it was indexed; open the shards again"
        )

    def keys(self, shard: str) -> tuple[str, ...]:
        return self.index(shard).keys

    def __len__(self) -> int:
        return self._starts[-1]

    def __repr__(self) -> str:
        return f"ImageTextShards({str(self.root)!r}: {len(self.shards)} shards, {len(self)} pairs)"

    def locate(self, i: int) -> tuple[str, str]:
        """(shard, key) of sample number `i`, 0 <= i < len(self)."""
        shard, row = self._locate(i)
        return shard, self.index(shard).key(row)

    def read(self, shard: str, key: str) -> Sample:
        """One sample by name.

        Raises:
            KeyError: there is no such shard or key.
            CaptionError: its captions cannot be read.
            ValueError: the shard changed since it was indexed.
        """
        return self._read_row(shard, self._row(shard, key))

    def read_image(self, shard: str, key: str) -> bytes:
        """The image file of one sample by name; errors as of `read`, but for its captions."""
        return self._read_member(shard, self.index(shard).table[self._row(shard, key)], "image")

    def _row(self, shard: str, key: str) -> int:
        try:
            return self.index(shard).row(key)
        except KeyError:
            raise KeyError(f"{self.root / shard} has no sample {key!r}") from None

    def __getitem__(self, i: int) -> Sample:
        """Sample number `i`, 0 <= i < len(self)."""
        return self._read_row(*self._locate(i))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def read_caption(self, i: int) -> str:
        """The cleaned captions of sample number `i`, without reading its image."""
        shard, row = self._locate(i)
        return self._read_text(shard, row)

    def caption_source(self, i: int) -> str:
        """Where the captions of sample `i` are sought: "KEY.txt", "KEY.json" ...; "" for none."""
        shard, row = self._locate(i)
        return self._source(self.index(shard).table[row])

    def _source(self, place: np.void) -> str:
        if self.caption_key is None and place["text_offset"] != MISSING:
            return f"KEY.{TEXT_EXTENSIONS[place['text_extension']]}"
        sought = self.caption_key is not None or place["json_offset"] != MISSING
        return "KEY.json" if sought else ""

    def _locate(self, i: int) -> tuple[str, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = bisect_right(self._starts, i) - 1
        return self.shards[number], int(i) - self._starts[number]

    def _read_row(self, shard: str, row: int) -> Sample:
        index = self.index(shard)
        image = self._read_member(shard, index.table[row], "image")
        text = self._read_text(shard, row)
        return Sample(shard=shard, key=index.key(row), image=image, text=text)

    def _read_text(self, shard: str, row: int) -> str:
        index = self.index(shard)
        place = index.table[row]
        source = self._source(place)
        if source != "KEY.json":
            return clean_captions(decode_caption(self._read_member(shard, place, "text")))
        data = self._read_member(shard, place, "json")
        try:
            if place["json_offset"] == MISSING:
                raise ValueError(f"no such member, whose field {self.caption_key!r} is asked for")
            return clean_captions(json_captions(data, self.caption_key) or "")
        except ValueError as error:
            raise CaptionError(
                f"{self.root / shard}: {index.key(row)}.json: {error}; repair it, or take another "
                "source of captions (docs/shards.md)"
            ) from None

    def _read_member(self, shard: str, place: np.void, role: str) -> bytes:
        """The member `role` ("image", "text" or "json") at a place; b"" where there is none."""
        if place[f"{role}_offset"] == MISSING:
            return b""
        return self._pread(shard, int(place[f"{role}_offset"]), int(place[f"{role}_size"]))

    def _pread(self, shard: str, offset: int, size: int) -> bytes:
        data = self._files.get(shard, lambda: self._open(shard)).read(offset, size)
        if len(data) != size:
            raise ValueError(f"{self.root / shard}: ends within a sample; it was changed or cut")
        return data

    def _open(self, shard: str) -> RandomFile:
        file = open_random(own(self.root) / shard)
        if file.stamp != self._stamps[shard]:
            raise self._changed(shard)
        return file

    def __getstate__(self) -> dict[str, Any]:
        kept = {shard: index for shard, index in self._indices.items() if shard in self._unkept}
        return {**self.__dict__, "_indices": kept}


def find_shards(root: AnyPath) -> tuple[AnyPath, dict[str, Stamp | None]]:
    """The tars under `root` (or `root` itself, if it is one): their folder, and the version of
    each, where the listing tells it, by relative path in order."""
    if root.suffix == ".tar" if not is_local(root) else root.is_file():
        return root.parent, {root.name: None}
    if is_local(root) and not root.is_dir():
        raise FileNotFoundError(f"{root}: no such file or folder of image-text tars")
    files = walk(root)
    for name in files:
        if name.lower().endswith(_COMPRESSED_SUFFIXES):
            raise ValueError(
                f"{root / name}: a compressed tar cannot be read at random; decompress it to a "
                "plain .tar"
            )
    shards = {name: version for name, version in files.items() if name.endswith(".tar")}
    if not shards:
        raise FileNotFoundError(f"{root}: no *.tar in this folder; see `cliptex shards import`")
    return root, shards


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/cliptex/index`, by default within ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "cliptex" / "index"
