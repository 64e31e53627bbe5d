"""Indices kept beside: the same again, and never one that does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cliptex.files import Stamp, stamp
from cliptex.shards.index import (
    IndexHead,
    cached_head,
    cached_index,
    index_shard,
    keep_index,
)

MakeTar = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, make_tar: MakeTar) -> Path:
    return make_tar(tmp_path / "a.tar", [("ä.jpg", b"x"), ("b.txt", b"y"), ("../c.jpg", b"z")])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_cache_gives_back_the_same(path: Path, cache: Path) -> None:
    index = index_shard(path)
    assert cached_index(path, index.stamp, cache) is None
    assert cached_head(path, index.stamp, cache) is None
    keep_index(path, index, cache)
    again = cached_index(path, stamp(path), cache)
    assert again is not None
    assert (again.keys, again.problems, again.stamp) == (index.keys, index.problems, index.stamp)
    assert (again.table == index.table).all()
    assert again.digest == index.digest and again.row("ä") == 0
    assert cached_head(path, stamp(path), cache) == IndexHead.of(index)


def test_another_version_or_path_has_no_index(path: Path, cache: Path) -> None:
    index = index_shard(path)
    keep_index(path, index, cache)
    others = [Stamp(index.size + 1, index.stamp.version), Stamp(index.size, "other")]
    os.utime(path, ns=(1, 1))
    for other in (*others, stamp(path)):
        assert cached_index(path, other, cache) is None
        assert cached_head(path, other, cache) is None
    assert cached_index(path.with_name("b.tar"), index.stamp, cache) is None


def test_an_empty_index_is_cached_too(tmp_path: Path, cache: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "e.tar", [])
    keep_index(path, index_shard(path), cache)
    again = cached_index(path, stamp(path), cache)
    assert again is not None and len(again) == 0 and again.keys == ()
    with pytest.raises(KeyError):
        again.row("a")


def test_damage_is_told_by_the_head(path: Path, cache: Path) -> None:
    path.write_bytes(path.read_bytes()[:1536])
    keep_index(path, index_shard(path), cache)
    head = cached_head(path, stamp(path), cache)
    assert head is not None
    assert head.damage == index_shard(path).damage == "'ä.jpg' is cut off at byte 1536"


def test_a_damaged_cache_file_is_ignored(path: Path, cache: Path) -> None:
    keep_index(path, index_shard(path), cache)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        kept.write_bytes(whole[:size])
        assert cached_index(path, stamp(path), cache) is None
        assert cached_head(path, stamp(path), cache) is None
    for place in (0, 8, 13, 60, len(whole) - 1):  # magic, version, width, stamp, body
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cached_index(path, stamp(path), cache) is None, place


def test_keys_in_any_order_are_found(tmp_path: Path, cache: Path, make_tar: MakeTar) -> None:
    keys = ["m", "a" * 30, "z", "b", "ä", "0"]
    path = make_tar(tmp_path / "o.tar", [(f"{key}.jpg", b"x") for key in keys])
    index = index_shard(path)
    keep_index(path, index, cache)
    again = cached_index(path, stamp(path), cache)
    assert again is not None
    for found in (index, again):
        assert [found.row(key) for key in keys] == list(range(6))
        for absent in ("", "a", "a" * 31, "zz", "y"):
            with pytest.raises(KeyError):
                found.row(absent)
    assert replace(index, names=index.names[:0], table=index.table[:0]).keys == ()
