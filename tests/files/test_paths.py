"""Text to path, listings, and what tells that a file changed."""

from __future__ import annotations

import os
import pickle
from importlib import import_module
from pathlib import Path

import pytest
from upath import UPath

from cliptex.files import (
    Stamp,
    as_path,
    exists,
    file_name,
    is_local,
    stamp,
    walk,
    write_atomic,
)
from cliptex.files.paths import DIGITS, LONGEST, _remote_stamp

LONG = "データセット画像分類用トレーニング素材集二〇二六"  # 24 characters, each of 9 encoded bytes


def test_local_text_is_a_plain_path(tmp_path: Path) -> None:
    assert as_path("a/b") == Path("a/b")
    assert as_path(f"file://{tmp_path}/x") == tmp_path / "x"
    assert as_path(UPath(f"file://{tmp_path}")) == tmp_path
    assert type(as_path(f"file://{tmp_path}")) is type(tmp_path)
    assert as_path(tmp_path) is tmp_path
    assert as_path("C:data") == Path("C:data"), "a colon alone makes no URL"


def test_urls_keep_both_slashes(memory: UPath) -> None:
    path = as_path("memory://store/a.tar")
    assert not is_local(path)
    assert str(path / "b") == "memory://store/a.tar/b"
    assert as_path(path) is path
    assert pickle.loads(pickle.dumps(path)) == path


def test_a_url_that_went_through_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the URL as text, s3://"):
        as_path(Path("s3://bucket/data"))
    assert as_path(Path("a:/b")) == Path("a:/b"), "no protocol of fsspec"


def test_an_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="carrier-pigeon:// is no file system"):
        as_path("carrier-pigeon://roof/data")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> type:
        raise ModuleNotFoundError(name)

    registry = import_module("fsspec.registry")  # the package has a variable of that name
    monkeypatch.setattr(registry, "_import_class", absent)
    for protocol in ("s3", "gs"):
        monkeypatch.delitem(registry._registry, protocol, raising=False)
    with pytest.raises(ModuleNotFoundError, match="s3:// needs the Python package s3fs: pip inst"):
        as_path("s3://bucket/data")
    with pytest.raises(ModuleNotFoundError, match="gcsfs"):
        as_path("gs://bucket/data")


def test_walk_is_the_same_on_both_sides(tmp_path: Path, memory: UPath) -> None:
    for root in (tmp_path, memory):
        for name in ("b/2.tar", "b/.2.tar.tmp", "a.tar", "b/c/d.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x" * len(name))
        found = walk(root)
        assert list(found) == ["a.tar", "b/2.tar", "b/c/d.txt"]
        assert [known and known.size for known in found.values()] == [5, 7, 9]
        assert found == {name: stamp(root / name) for name in found}
    assert walk(tmp_path / "nowhere") == {} == walk(memory / "nowhere")
    (memory.parent / "store-too.tar").write_bytes(b"of another folder")
    assert "-too.tar" not in walk(memory)


def test_walk_lists_once(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        (memory / f"{i % 3}/{i}.tar").write_bytes(b"x")
    calls: list[str] = []
    for method in ("find", "info", "isfile", "exists"):
        real = getattr(memory.fs, method)
        watched = lambda *a, _m=method, _r=real, **k: (calls.append(_m), _r(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(memory.fs, method, watched)
    assert len(walk(memory)) == 30
    assert calls.count("find") == 1


def test_a_changed_file_has_another_stamp(tmp_path: Path, memory: UPath) -> None:
    for path in (tmp_path / "a", memory / "a"):
        path.write_bytes(b"one")
        before = stamp(path)
        assert before == stamp(path) and before.size == 3 and before.version
        path.write_bytes(b"two")
        if path == tmp_path / "a":
            os.utime(path, ns=(1, 1))
        assert stamp(path) != before
        assert exists(path) and not exists(path.with_name("b"))
        with pytest.raises(FileNotFoundError):
            stamp(path.with_name("b"))


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"size": 5, "ETag": '"abc"', "LastModified": 7}, '"abc"'),
        ({"size": 5, "etag": "e", "updated": "t"}, "e"),
        ({"size": 5, "blob_id": "b", "lfs": {"sha256": "s"}}, "s"),
        ({"size": 5, "blob_id": "b", "lfs": None}, "b"),
        ({"size": 5, "mtime": 1.5}, "1.5"),
        ({"size": 5}, ""),
    ],
)
def test_versions_of_different_file_systems(info: dict[str, object], expected: str) -> None:
    assert _remote_stamp(info) == Stamp(5, expected)


def test_a_server_that_tells_no_size() -> None:
    with pytest.raises(ValueError, match="http://h/a.tar: the server does not tell the size"):
        _remote_stamp({"name": "http://h/a.tar", "size": None})


def test_names_with_blanks_and_umlauts(tmp_path: Path, memory: UPath) -> None:
    for root in (tmp_path, memory):
        (root / "ä b.tar").write_bytes(b"x")
        assert list(walk(root)) == ["ä b.tar"]
    assert as_path(f"file://{tmp_path}/" + "ä b.tar").exists()


def test_file_name__short_ones_are_encoded_alone():
    assert file_name("open_clip:ViT-B-16/a b", safe=" ,") == "open_clip%3AViT-B-16%2Fa b"
    assert file_name("m" * LONGEST) == "m" * LONGEST


@pytest.mark.parametrize("text", [LONG, "m" * (LONGEST + 1), "/" * 400])
def test_file_name__long_ones_are_cut_and_stay_apart(text, tmp_path):
    name = file_name(text)
    assert len(name) == LONGEST and name.isascii() and "/" not in name
    assert name[: -DIGITS - 1] == file_name(text + "x")[: -DIGITS - 1]
    assert name != file_name(text + "x")
    path = tmp_path / f"{name}.json"
    write_atomic(path, b"{}")  # by way of a temporary name, which is longer
    assert path.read_bytes() == b"{}"
