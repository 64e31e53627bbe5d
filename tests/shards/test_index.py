from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cliptex.shards import index as index_module
from cliptex.shards.index import MISSING, index_shard, split_name

Picture = Callable[..., bytes]
MakeTar = Callable[..., Path]


def contents(path: Path, key: str) -> tuple[bytes, bytes]:
    index = index_shard(path)
    row = index.table[index.row(key)]
    data = path.read_bytes()
    image, text = int(row["image_offset"]), int(row["text_offset"])
    return (
        data[image : image + int(row["image_size"])],
        data[text : text + int(row["text_size"])],
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001.jpg", ("0001", "jpg")),
        ("./0001.JPG", ("0001", "jpg")),
        ("a/b.c/0001.seg.PNG", ("a/b.c/0001", "seg.png")),
        (".hidden.jpg", None),
        ("a/._0001.jpg", None),
        ("readme", None),
    ],
)
def test_names_split_at_the_first_dot_of_the_base_name(
    name: str, expected: tuple[str, str] | None
) -> None:
    assert split_name(name) == expected


def test_offsets_point_at_the_contents(tmp_path: Path, make_tar: MakeTar) -> None:
    members = []
    for i, extension in enumerate(("jpg", "JPEG", "png", "webp")):
        members += [(f"00{i}.{extension}", b"image%d" % i * (i + 1)), (f"00{i}.txt", b"text%d" % i)]
        members += [(f"00{i}.json", b"{}"), (f"00{i}.cls", b"7")]
    path = make_tar(tmp_path / "a.tar", members)
    index = index_shard(path)
    assert index.keys == ("000", "001", "002", "003")
    assert index.extensions == ("jpg", "jpeg", "png", "webp")
    assert index.problems == ()
    for i, key in enumerate(index.keys):
        assert contents(path, key) == (b"image%d" % i * (i + 1), b"text%d" % i)
    with pytest.raises(KeyError):
        index.row("004")


def test_members_of_a_key_need_not_be_adjacent(tmp_path: Path, make_tar: MakeTar) -> None:
    members = [("b.txt", b"B"), ("a.txt", b"A"), ("a.jpg", b"aa"), ("c.jpg", b"c"), ("b.jpg", b"b")]
    index = index_shard(path := make_tar(tmp_path / "a.tar", members))
    assert index.keys == ("b", "a", "c")
    assert contents(path, "b") == (b"b", b"B")
    assert index.table["text_offset"][index.row("c")] == MISSING
    assert index.problems == ()


def test_duplicates_are_reported_and_the_first_kept(tmp_path: Path, make_tar: MakeTar) -> None:
    members = [("a.jpg", b"1"), ("a.txt", b"one"), ("a.jpg", b"2"), ("a.txt", b"two")]
    path = make_tar(tmp_path / "a.tar", [*members, ("a.png", b"3")])
    assert index_shard(path).keys == ("a",)
    assert contents(path, "a") == (b"1", b"one")
    kinds = [problem.partition(":")[0] for problem in index_shard(path).problems]
    assert kinds == ["duplicate key", "duplicate key", "several images"]


def test_of_several_images_or_texts_the_order_decides(tmp_path: Path, make_tar: MakeTar) -> None:
    members = [("a.png", b"1"), ("a.caption", b"c"), ("a.jpg", b"2"), ("a.gif", b"3")]
    members += [("a.text", b"t"), ("b.JPEG", b"4"), ("./b.txt", b"b"), ("b.text", b"x")]
    for number, order in enumerate((members, members[::-1])):
        path = make_tar(tmp_path / f"{number}.tar", order)
        assert contents(path, "a") == (b"2", b"t")
        assert contents(path, "b") == (b"4", b"b")
        (problem,) = index_shard(path).problems
        assert problem.startswith("several images: 1, such as 'a' has ")


@pytest.mark.parametrize("other", ["./a", "././a", ".//a"])
def test_a_leading_dot_makes_no_other_key(tmp_path: Path, make_tar: MakeTar, other: str) -> None:
    path = make_tar(tmp_path / "a.tar", [("a.jpg", b"1"), (f"{other}.txt", b"one")])
    assert index_shard(path).keys == ("a",) and contents(path, "a") == (b"1", b"one")
    make_tar(path, [("a.jpg", b"1"), (f"{other}.jpg", b"2")])
    assert contents(path, "a")[0] == b"1"
    assert index_shard(path).problems[0].startswith("duplicate key: ")


def test_members_that_belong_to_no_sample_are_counted(tmp_path: Path, make_tar: MakeTar) -> None:
    members = [("22.05.jpg", b"1"), ("22.05.TXT", b"x"), ("a.jpg", b"2"), ("a.seg.png", b"3")]
    members += [("._a.jpg", b"4"), ("a.cls", b"5"), ("a.json", b"{}"), ("readme", b"6")]
    index = index_shard(make_tar(tmp_path / "a.tar", members))
    assert index.keys == ("a",) and index.damage == ""
    assert index.problems == ("ignored: 4, such as '22.05.jpg'",)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (["22.05.jpg", "22.05.txt"], r"2 members such as '22\.05\.jpg' .* ends at the first dot"),
        (["s0.input.jpg", "s0.outputs.txt", "s0.json"], r"2 members such as 's0\.input\.jpg'"),
        (["a.txt", "b.caption"], "2 texts such as that of 'a', and no image"),
    ],
)
def test_a_tar_whose_members_form_no_sample_is_useless(
    tmp_path: Path, make_tar: MakeTar, members: list[str], why: str
) -> None:
    index = index_shard(make_tar(tmp_path / "a.tar", [(name, b"x") for name in members]))
    assert len(index) == 0
    assert re.search(why, index.damage)


def test_an_empty_tar_is_no_damage(tmp_path: Path, make_tar: MakeTar) -> None:
    index = index_shard(make_tar(tmp_path / "a.tar", []))
    assert (len(index), index.damage) == (0, "")
    assert index.problems == ("empty: it holds no sample",)


def test_captions_without_image_are_reported(tmp_path: Path, make_tar: MakeTar) -> None:
    index = index_shard(make_tar(tmp_path / "a.tar", [("a.txt", b"x"), ("b.jpg", b"y")]))
    assert index.keys == ("b",)
    assert index.problems == ("missing image: 'a' has a caption only",)


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "..\\a.jpg"])
def test_names_that_lead_outside_are_refused(tmp_path: Path, make_tar: MakeTar, name: str) -> None:
    index = index_shard(make_tar(tmp_path / "a.tar", [(name, b"evil"), ("b.jpg", b"good")]))
    assert index.keys == ("b",)
    assert len(index.problems) == 1
    assert index.problems[0].startswith("refused: ")
    assert "outside" in index.problems[0]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
        folder = tarfile.TarInfo("sub")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        member = tarfile.TarInfo("b.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    index = index_shard(path)
    assert index.keys == ("b",)
    assert index.problems == ("refused: 'a.jpg' is a link or a special file",)
    assert contents(path, "b")[0] == b"abc"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    keys = ["x" * 150, "folder/" * 30 + "größe", "日本"]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for key in keys:
            for extension in ("jpg", "txt"):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = 5
                tar.addfile(member, io.BytesIO(b"12345"))
    index = index_shard(path)
    assert index.keys == tuple(keys)
    assert index.problems == ()
    assert [index.row(key) for key in keys] == [0, 1, 2]
    assert contents(path, "日本") == (b"12345", b"12345")


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [("b.jpg", b"x")])
    with tarfile.open(
        tmp_path / "b.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT
    ) as tar:
        tar.addfile(tarfile.TarInfo("é.jpg"))
    path.write_bytes((tmp_path / "b.tar").read_bytes()[:512] + path.read_bytes())
    index = index_shard(path)
    assert index.keys == ("b",)
    assert "not UTF-8" in index.problems[0]


def test_a_tar_cut_anywhere_keeps_what_is_whole(tmp_path: Path, make_tar: MakeTar) -> None:
    members = [(f"{i}.{e}", bytes([65 + i]) * 700) for i in range(3) for e in ("jpg", "txt")]
    whole = make_tar(tmp_path / "whole.tar", members).read_bytes()
    end = 6 * (512 + 1024)
    assert index_shard(tmp_path / "whole.tar").problems == ()
    path = tmp_path / "cut.tar"
    for size in [*range(0, end + 1, 128), end - 324, end - 325]:
        path.write_bytes(whole[:size])
        index = index_shard(path)
        for key in index.keys:
            image, text = contents(path, key)
            assert image == bytes([65 + int(key)]) * 700
            assert text in (b"", image)
        # a member is whole as soon as its last byte is there, padding or not
        images = sum(size >= i * 3072 + 512 + 700 for i in range(3))
        assert len(index) == images
        # a cut between members cannot be told from a program that writes no end mark
        between = size > 0 and size % 1536 == 0
        kinds = [problem.partition(":")[0] for problem in index.problems]
        assert kinds == ["unfinished" if between else "truncated"]
        assert bool(index.damage) != between


def test_damage_in_the_middle_is_reported(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [(f"{i}.jpg", b"x" * 10) for i in range(4)])
    data = bytearray(path.read_bytes())
    data[2048:2100] = b"\xab" * 52
    path.write_bytes(data)
    index = index_shard(path)
    assert index.keys == ("0", "1")
    assert index.problems == (f"truncated: not a tar header at byte 2048 of {len(data)}",)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_flipped_header_bytes_end_in_an_index(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for key in ("a", "ä" * 80, "b" * 120, "c"):
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    starts = np.arange(0, 10 * 512, 512)
    for _ in range(300):
        damaged = whole.copy()
        start = int(rng.choice(starts))
        # anywhere, or among the size, the checksum and the type
        spot = rng.integers(512) if rng.random() < 0.5 else rng.integers(124, 160)
        damaged[start + spot] = (rng.integers(256), ord("9"), 0x80, 0xFF)[rng.integers(4)]
        header = damaged[start : start + 512]
        if rng.random() < 0.7:  # a right checksum, so that the other fields are believed
            total = int(header.sum()) - int(header[148:156].sum()) + 256
            header[148:156] = np.frombuffer(b"%06o\0 " % total, np.uint8)
        path.write_bytes(damaged.tobytes())
        index = index_shard(path)
        ends = index.table["image_offset"] + index.table["image_size"]
        assert (ends <= len(whole)).all() and (index.table["image_size"] >= 0).all()


def test_the_quick_header_reader_agrees_with_tarfile(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [(f"k{i}.jpg", bytes(i * 300)) for i in range(9)])
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
    with path.open("rb") as file:
        found = index_module._members(file, path.stat().st_size, [])
        assert [(m.name, m.offset_data, m.size) for m in found] == expected


def test_a_file_that_is_no_tar_has_no_samples(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"<html>" * 500)
    assert len(index_shard(tmp_path / "a.tar")) == 0
    assert index_shard(tmp_path / "a.tar").problems[0].startswith("truncated: ")
    assert index_shard(tmp_path / "a.tar").damage.startswith("damaged after byte 0")


def test_compressed_tars_are_refused(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [("a.jpg", b"x")])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.tar: compressed with gzip.*[Dd]ecompress"):
        index_shard(path)


def test_a_sparse_member_is_refused(tmp_path: Path, make_tar: MakeTar) -> None:
    path = make_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("b.jpg", b"y")])
    with tarfile.open(path) as tar:
        header = tar.getmembers()[0]
    header.type = tarfile.GNUTYPE_SPARSE
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + path.read_bytes()[512:])
    index = index_shard(path)
    assert index.keys == ("b",)
    assert "special file" in index.problems[0]
