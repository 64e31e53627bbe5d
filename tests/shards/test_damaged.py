"""One damaged tar among good ones: named, left out, or used as far as it is whole."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cliptex.shards.dataset import ImageTextShards

MakeTar = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_tar: MakeTar) -> Path:
    """Sound a.tar and e.tar; b.tar cut in its second image, c.tar gzipped, d.tar no tar at all."""
    root = tmp_path / "shards"
    for name in "abce":
        make_tar(root / f"{name}.tar", [(f"{i}.jpg", f"{name}{i}".encode()) for i in range(3)])
    (root / "b.tar").write_bytes((root / "b.tar").read_bytes()[:1537])
    (root / "c.tar").write_bytes(gzip.compress((root / "c.tar").read_bytes()))
    (root / "d.tar").write_bytes(b"<html>not found</html>" * 100)
    return root


@pytest.mark.parametrize("again", [False, True])
def test_all_are_named_with_the_remedy(folder: Path, again: bool) -> None:
    if again:  # what the index remembers must not be taken for sound
        ImageTextShards(folder, on_damaged="leave out")
    with pytest.raises(ValueError) as caught:
        ImageTextShards(folder)
    text = str(caught.value)
    assert text.startswith("3 of 5 shards are damaged:")
    assert f"{folder}/b.tar: '1.jpg' is cut off at byte 1537" in text
    assert f"{folder}/c.tar: compressed with gzip" in text
    assert f"{folder}/d.tar: damaged after byte 0" in text
    assert "copy them again or move them elsewhere" in text and "leave out" in text


@pytest.mark.parametrize("again", [False, True])
def test_left_out(folder: Path, again: bool) -> None:
    if again:
        ImageTextShards(folder, on_damaged="leave out")
    shards = ImageTextShards(folder, on_damaged="leave out")
    assert shards.shards == ("a.tar", "e.tar") and len(shards) == 6
    assert list(shards.damaged) == ["b.tar", "c.tar", "d.tar"]
    assert [shards[i].image for i in (0, 3)] == [b"a0", b"e0"]
    with pytest.raises(KeyError, match=r"no shard 'b\.tar'"):
        shards.keys("b.tar")
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.damaged == shards.damaged and copy[5].image == b"e2"


def test_the_whole_samples_kept(folder: Path) -> None:
    shards = ImageTextShards(folder, on_damaged="keep")
    assert shards.shards == ("a.tar", "b.tar", "d.tar", "e.tar")
    assert [sample.image for sample in shards] == [b"a0", b"a1", b"a2", b"b0", b"e0", b"e1", b"e2"]
    assert list(shards.damaged) == ["b.tar", "c.tar", "d.tar"]


def test_left_out_is_as_if_they_were_not_there(folder: Path) -> None:
    shards = ImageTextShards(folder, on_damaged="leave out")
    for name in "bcd":
        (folder / f"{name}.tar").unlink()
    sound = ImageTextShards(folder)
    assert sound.dataset_id == shards.dataset_id and sound.damaged == {}


def test_repaired_shards_are_there_again(folder: Path, make_tar: MakeTar) -> None:
    ImageTextShards(folder, on_damaged="leave out")
    for name in "bcd":
        make_tar(folder / f"{name}.tar", [("0.jpg", name.encode())])
    assert len(ImageTextShards(folder)) == 9


def test_nothing_but_damage(folder: Path) -> None:
    with pytest.raises(ValueError, match="1 of 1 shards are damaged"):
        ImageTextShards(folder / "d.tar", on_damaged="leave out")


def test_a_missing_end_mark_is_no_damage(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [("0.jpg", b"x")])
    path.write_bytes(path.read_bytes()[:1024])
    shards = ImageTextShards(path)
    assert len(shards) == 1 and shards.damaged == {}
    assert shards.index("a.tar").problems[0].startswith("unfinished: ends at byte 1024")
