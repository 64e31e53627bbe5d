from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards

Picture = Callable[..., bytes]
MakeTar = Callable[..., Path]


def test_a_sound_set(tmp_path: Path, picture: Picture, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a.tar", [("0.jpg", picture(0)), ("0.txt", b"one\ntwo")])
    make_tar(tmp_path / "b.tar", [("0.jpg", picture(1)), ("0.txt", b"three")])
    report = check(ImageTextShards(tmp_path))
    assert (report.shards, report.samples, report.captions) == (2, 2, 3)
    assert report.ok and report.counts == {} and report.shared_keys == 1
    assert str(report).endswith("sound")


def test_every_kind_of_problem_is_counted(
    tmp_path: Path, picture: Picture, make_tar: MakeTar
) -> None:
    members = [("good.jpg", picture(0)), ("good.txt", b"fine")]
    members += [("good.jpg", picture(1)), ("../evil.jpg", b"x"), ("lonely.txt", b"x")]
    members += [("mute.jpg", picture(2)), ("blank.jpg", picture(3)), ("blank.txt", b" <b></b>\n")]
    members += [("cut.jpg", picture(4)[:300]), ("cut.txt", b"x"), ("none.jpg", b"")]
    members += [("none.txt", b"x"), ("last.jpg", picture(5)), ("last.txt", b"x")]
    path = make_tar(tmp_path / "a.tar", members)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"last.txt") + 600])
    shards = ImageTextShards(tmp_path, on_damaged="keep")
    report = check(shards)
    assert report.counts == {
        "duplicate key": 1,
        "refused": 1,
        "missing image": 1,
        "missing text": 1,
        "empty caption": 1,
        "undecodable image": 2,
    } | {"truncated": 1}
    assert not report.ok
    assert len(report.problems) == 8
    text = str(report)
    for key in ("'good.jpg'", "../evil.jpg", "'lonely'", "mute", "blank", "a.tar: none: empty"):
        assert key in text
    assert text.endswith("8 problems")
    assert "undecodable image" not in check(shards, decode=False).counts


def test_shards_that_cannot_be_read_are_counted(
    tmp_path: Path, picture: Picture, make_tar: MakeTar
) -> None:
    make_tar(tmp_path / "a.tar", [("0.jpg", picture(0)), ("0.txt", b"one")])
    (tmp_path / "b.tar").write_bytes(gzip.compress(b"x"))
    report = check(ImageTextShards(tmp_path, on_damaged="keep"))
    assert (report.shards, report.samples, report.counts) == (2, 1, {"unreadable": 1})
    assert "b.tar: compressed with gzip" in str(report)


@pytest.mark.parametrize("number", [5, 50])
def test_a_long_report_is_cut(tmp_path: Path, make_tar: MakeTar, number: int) -> None:
    make_tar(tmp_path / "a.tar", [(f"{i}.jpg", b"") for i in range(number)])
    report = check(ImageTextShards(tmp_path))
    assert len(report.problems) == 2 * number
    assert (f"and {2 * number - 20} more" in str(report)) == (number == 50)
