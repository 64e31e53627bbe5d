from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cliptex.files import OpenFiles
from cliptex.shards import dataset as dataset_module
from cliptex.shards.dataset import ImageTextShards, default_cache
from cliptex.shards.write import ShardWriter

Picture = Callable[..., bytes]
MakeTar = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    """Five samples in three shards."""
    root = tmp_path / "shards"
    with ShardWriter(root, prefix="x", samples_per_shard=2) as writer:
        for i in range(5):
            writer.add(f"{i:09d}", picture(i), "jpg", f"Caption+{i}\n\nAnother  %23{i}")
    return root


def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []
    real = dataset_module.index_shard
    monkeypatch.setattr(dataset_module, "index_shard", lambda p: (seen.append(p), real(p))[1])
    return seen


def test_written_and_read_again(folder: Path, picture: Picture) -> None:
    shards = ImageTextShards(folder)
    assert shards.shards == ("x-00000.tar", "x-00001.tar", "x-00002.tar")
    assert len(shards) == 5
    for i in range(5):
        shard, key = shards.locate(i)
        assert (shard, key) == (f"x-0000{i // 2}.tar", f"{i:09d}")
        sample = shards.read(shard, key)
        assert sample == shards[i]
        assert sample.image == picture(i)
        assert sample.captions == (f"caption {i}", f"another #{i}")
        assert sample.text == shards.read_caption(i) == f"caption {i}\nanother #{i}"
    assert [sample.key for sample in shards] == [f"{i:09d}" for i in range(5)]


def test_wrong_names_and_numbers(folder: Path) -> None:
    shards = ImageTextShards(folder)
    with pytest.raises(KeyError, match="x-00000.tar has no sample '7'"):
        shards.read("x-00000.tar", "7")
    with pytest.raises(KeyError, match=r"no shard 'y\.tar'"):
        shards.keys("y.tar")
    for i in (-1, 5):
        with pytest.raises(IndexError):
            shards.locate(i)


def test_subfolders_and_order(tmp_path: Path, make_tar: MakeTar) -> None:
    for name in ("b/1.tar", "a/2.tar", "a/10.tar", "c.tar", "a/._2.tar"):
        make_tar(tmp_path / name, [("k.jpg", name.encode())])
    shards = ImageTextShards(tmp_path)
    assert shards.shards == ("a/10.tar", "a/2.tar", "b/1.tar", "c.tar")
    assert [shards[i].image.decode() for i in range(4)] == list(shards.shards)


def test_one_tar(folder: Path) -> None:
    shards = ImageTextShards(folder / "x-00001.tar")
    assert (shards.root, shards.shards, len(shards)) == (folder, ("x-00001.tar",), 2)


def test_missing_or_compressed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such"):
        ImageTextShards(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \*\.tar"):
        ImageTextShards(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.tar\.gz.*decompress"):
        ImageTextShards(tmp_path)


def test_a_sample_without_text_is_read(tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("b.jpg", b"y"), ("b.txt", b" \n ")])
    shards = ImageTextShards(tmp_path)
    assert [(s.text, s.captions) for s in shards] == [("", ()), ("", ())]


def test_a_caption_that_is_not_utf8(tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.txt", "Café".encode("latin-1"))])
    assert ImageTextShards(tmp_path)[0].text == "café"


def test_index_is_kept_and_used(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = scans(monkeypatch)
    first = ImageTextShards(folder)
    assert len(seen) == 3
    assert default_cache() == own_cache
    assert len(list(own_cache.iterdir())) == 3
    assert not [name for name in os.listdir(folder) if not name.endswith(".tar")]
    second = ImageTextShards(folder)
    assert len(seen) == 3
    assert second.dataset_id == first.dataset_id


def test_only_a_changed_shard_is_scanned_again(
    folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    before = ImageTextShards(folder, cache=cache)
    seen = scans(monkeypatch)
    with ShardWriter(folder, prefix="x") as writer:  # overwrites x-00000.tar
        writer.add("new", picture(9), "jpg", "new")
    after = ImageTextShards(folder, cache=cache)
    assert [path.name for path in seen] == ["x-00000.tar"]
    assert after.keys("x-00000.tar") == ("new",)
    assert len(after) == 4
    assert after.dataset_id != before.dataset_id
    with pytest.raises(ValueError, match=r"x-00000\.tar: changed since"):
        before.read("x-00000.tar", "000000000")


def test_an_unwritable_cache_is_no_obstacle(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(ImageTextShards(folder, cache=tmp_path / "file")) == 5


def test_identity_depends_on_names_sizes_and_keys_alone(
    folder: Path, tmp_path: Path, make_tar: MakeTar
) -> None:
    identity = ImageTextShards(folder).dataset_id
    assert len(identity) == 32
    folder.rename(tmp_path / "moved")
    os.utime(tmp_path / "moved/x-00000.tar", (1, 1))
    assert ImageTextShards(tmp_path / "moved").dataset_id == identity
    (tmp_path / "moved/x-00000.tar").rename(tmp_path / "moved/w.tar")
    assert ImageTextShards(tmp_path / "moved").dataset_id != identity


def test_identity_sees_another_key_of_the_same_size(tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a/s.tar", [("k1.jpg", b"x")])
    make_tar(tmp_path / "b/s.tar", [("k2.jpg", b"x")])
    a, b = ImageTextShards(tmp_path / "a"), ImageTextShards(tmp_path / "b")
    assert a.dataset_id != b.dataset_id


def test_pickled_without_open_files(folder: Path) -> None:
    shards = ImageTextShards(folder)
    first = shards[0]
    copy = pickle.loads(pickle.dumps(shards))
    assert copy[0] == first
    assert len(pickle.loads(pickle.dumps(copy))) == 5


def test_read_in_other_processes(folder: Path) -> None:
    shards = ImageTextShards(folder)
    expected = [shards[i] for i in range(5)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(shards.__getitem__, range(5)) == expected


def test_read_in_many_threads_with_few_open_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "OpenFiles", lambda limit: OpenFiles(1))
    shards = ImageTextShards(folder)
    expected = [shards[i] for i in range(5)]
    wrong: list[object] = []

    def work(start: int) -> None:
        try:
            for i in range(300):
                number = (start + i) % 5
                if shards[number] != expected[number]:
                    wrong.append(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("allowed", [128, 8000])
def test_open_files_stay_few(
    tmp_path: Path, make_tar: MakeTar, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """An eighth of what the process may open."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    for i in range(80):
        make_tar(tmp_path / f"{i:03d}.tar", [("k.jpg", b"%d" % i)])
    shards = ImageTextShards(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for i in range(80):
        assert shards[i].image == b"%d" % i
    assert len(os.listdir("/proc/self/fd")) - before == min(80, allowed // 8)
