from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.compat import WebDataset

from cliptex.files.writing import TEMPORARY_PATTERN
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardFile, ShardWriter

Picture = Callable[..., bytes]


def write_some(out: Path, picture: Picture, count: int = 5) -> list[Path]:
    with ShardWriter(out, prefix="cc3m-train", samples_per_shard=2) as writer:
        for i in range(count):
            writer.add(f"{i:09d}", picture(i), "JPG", f"caption {i}", {"b": i, "a": "ä"})
    return writer.paths


def test_names_sizes_and_members(tmp_path: Path, picture: Picture) -> None:
    paths = write_some(tmp_path, picture)
    assert [p.name for p in paths] == [f"cc3m-train-0000{i}.tar" for i in range(3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]
    with tarfile.open(paths[2]) as tar:
        assert tar.getnames() == ["000000004.jpg", "000000004.txt", "000000004.json"]
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        content = tar.extractfile("000000004.json")
        assert content is not None
        assert content.read().decode() == '{"a": "ä", "b": 4}'


def test_same_samples_same_bytes(tmp_path: Path, picture: Picture) -> None:
    first, second = write_some(tmp_path / "a", picture), write_some(tmp_path / "b", picture)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


# webdataset leaves the file to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_it(tmp_path: Path, picture: Picture) -> None:
    paths = write_some(tmp_path, picture, count=2)
    samples = list(WebDataset([str(paths[0])], shardshuffle=False))
    assert [s["__key__"] for s in samples] == ["000000000", "000000001"]
    assert samples[1]["jpg"] == picture(1)
    assert samples[1]["txt"] == b"caption 1"


KEYS = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_characters="./\\\0\n\r"), min_size=1, max_size=120
    ),
    unique=True,
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(keys=KEYS, data=st.data())
def test_any_samples_come_back(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.tar"
    images = {key: data.draw(st.binary(max_size=1200)) for key in keys}
    with ShardFile(path) as shard:
        for key, image in images.items():
            shard.add(key, image, "png", "some text")
    shards = ImageTextShards(path)
    assert shards.index("a.tar").problems == ()
    assert {s.key: s.image for s in shards} == images
    assert all(shards.read("a.tar", key).image == images[key] for key in keys)


@pytest.mark.parametrize("key", ["", "a.b", "../a", "/a", "a//b", "a/", "a\\b", "a\0"])
def test_bad_keys(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="key"), ShardFile(tmp_path / "a.tar") as shard:
        shard.add(key, b"x", "jpg", "t")
    assert list(tmp_path.iterdir()) == []


def test_bad_extension_and_repeated_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="heic"), ShardFile(tmp_path / "a.tar") as shard:
        shard.add("a", b"x", "heic", "t")
    with pytest.raises(ValueError, match="exists already"), ShardFile(tmp_path / "a.tar") as shard:
        shard.add("a", b"x", "jpg", "t")
        shard.add("a", b"x", "jpg", "t")
    with pytest.raises(ValueError, match="samples_per_shard"):
        ShardWriter(tmp_path, prefix="x", samples_per_shard=0)


class _FullDisk:
    """A file on a disk with room for `room` bytes."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self._file = file
        self._room = room

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def open_temporary(monkeypatch: pytest.MonkeyPatch, instead: Callable[[Path], Any]) -> None:
    """Open files that will be renamed when they are whole as `instead` does."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        written = path.match(TEMPORARY_PATTERN) and mode == "wb"
        return instead(path) if written else real(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", opened)


def fake_full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    open_temporary(monkeypatch, lambda path: _FullDisk(open(path, "wb"), room))  # noqa: SIM115


@pytest.mark.parametrize("room", [0, 512, 700, 2000, 3000, 9000])
def test_a_full_disk_leaves_nothing_half_made(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    write_some(tmp_path / "whole", picture)
    size = (tmp_path / "whole/cc3m-train-00000.tar").stat().st_size
    assert room < size
    fake_full_disk(monkeypatch, room)
    with pytest.raises(OSError, match="(?i)no space left"):
        write_some(tmp_path / "out", picture)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_the_shard_of_before(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_some(tmp_path, picture, count=2)
    before = paths[0].read_bytes()
    fake_full_disk(monkeypatch, 100)
    with pytest.raises(OSError, match="(?i)no space left"):
        write_some(tmp_path, picture, count=2)
    assert [p.name for p in tmp_path.iterdir()] == [paths[0].name]
    assert paths[0].read_bytes() == before


def test_a_failing_sync_leaves_nothing(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="(?i)no space left"):
        write_some(tmp_path, picture)
    assert list(tmp_path.iterdir()) == []


def test_the_real_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full accepts the open and refuses every byte, also those flushed on close."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    open_temporary(monkeypatch, lambda _: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(OSError, match="(?i)no space left"), ShardFile(tmp_path / "a.tar") as shard:
        shard.add("a", b"x", "jpg", "t")
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_whole_shards_and_drops_the_open_one(
    tmp_path: Path, picture: Picture
) -> None:
    with (
        pytest.raises(RuntimeError),
        ShardWriter(tmp_path, prefix="x", samples_per_shard=2) as writer,
    ):
        for i in range(3):
            writer.add(f"{i}", picture(i), "jpg", "t")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["x-00000.tar"]
    assert len(ImageTextShards(tmp_path)) == 2


def test_nothing_added_nothing_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, prefix="x") as writer:
        pass
    assert writer.paths == [] and list(tmp_path.iterdir()) == []
