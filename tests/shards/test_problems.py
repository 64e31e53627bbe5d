"""What is odd in shards is counted and named whenever they are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.problems import stats_problem

MakeTar = Callable[..., Path]
Picture = Callable[..., bytes]


Said = Callable[[], list[str]]


def test_every_opening_counts_and_names(tmp_path: Path, make_tar: MakeTar, said: Said) -> None:
    for name in "ab":
        members = [("0.jpg", b"x"), ("0.png", b"x"), ("1.5.jpg", b"y"), ("2.5.txt", b"z")]
        make_tar(tmp_path / f"{name}.tar", members)
    make_tar(tmp_path / "c.tar", [])
    path = make_tar(tmp_path / "d.tar", [("0.jpg", b"x"), ("1.jpg", b"x")])
    path.write_bytes(path.read_bytes()[:1024])  # cut between two members
    for _ in range(2):  # the second time from the kept index
        ImageTextShards(tmp_path)
        lines = said()
        assert len(lines) == 4 and all(line.startswith(f"{tmp_path}: ") for line in lines)
        text = "\n".join(line.removeprefix(f"{tmp_path}: ") for line in lines)
        assert "1 shards end without an end-of-archive mark" in text and "d.tar: ends at" in text
        assert "1 shards hold no sample; such as c.tar" in text
        assert "4 members end in an image's or a text's suffix" in text
        assert "such as a.tar: '1.5.jpg'" in text
        assert "2 samples have several images" in text
    ImageTextShards(tmp_path, on_damaged="keep")
    assert said() == []  # `check` shows it


def test_samples_that_the_statistics_count_are_missed(
    tmp_path: Path, make_tar: MakeTar, said: Said
) -> None:
    make_tar(tmp_path / "00000.tar", [("0.jpg", b"x"), ("1.jpg", b"y")])
    stats = tmp_path / "00000_stats.json"
    for content, count in (('{"successes": 6}', 4), ('{"successes": 2}', 0), ("{}", 0)):
        stats.write_text(content)
        ImageTextShards(tmp_path)
        lines = said()
        assert len(lines) == bool(count)
        report = check(ImageTextShards(tmp_path, on_damaged="keep"), decode=False)
        said()
        assert ("fewer samples" in report.counts) == bool(count)
        if count:
            assert f"{count} samples that NAME_stats.json counts are missing" in lines[0]
            assert "00000.tar: 00000_stats.json counts 6, the tar holds 2" in lines[0]
    for content in ("[]", '{"successes": 6', ""):
        stats.write_text(content)
        ImageTextShards(tmp_path)
        assert "00000_stats.json is no JSON object" in said()[0]


def test_a_folder_without_a_sample_is_refused(tmp_path: Path, make_tar: MakeTar) -> None:
    make_tar(tmp_path / "a.tar", [])
    make_tar(tmp_path / "b.tar", [])
    with pytest.raises(ValueError, match="no sample in 2 shards: 2 shards hold no sample"):
        ImageTextShards(tmp_path)
    make_tar(tmp_path / "b.tar", [("s0.input.jpg", b"x"), ("s0.outputs.txt", b"y")])
    with pytest.raises(ValueError, match=r"1 of 2 shards are damaged:\n.*such as 's0\.input\.jpg'"):
        ImageTextShards(tmp_path)
    assert check(ImageTextShards(tmp_path, on_damaged="keep")).counts == {"no sample": 1}


def test_check_remarks_on_what_is_harmless(
    tmp_path: Path, make_tar: MakeTar, picture: Picture
) -> None:
    members = [("0.jpg", picture(0)), ("0.txt", b"x"), ("0.seg.png", b"x"), ("0.png", picture(1))]
    make_tar(tmp_path / "a.tar", members)
    make_tar(tmp_path / "b.tar", [])
    report = check(ImageTextShards(tmp_path, on_damaged="keep"))
    assert report.ok and len(report.remarks) == 3
    assert "'0.seg.png'" in str(report) and "several images" in str(report)
    assert str(report).endswith("sound")


@pytest.mark.parametrize("told", ["Infinity", '"6"', "-1", "true", "2.5"])
def test_statistics_that_count_nothing_are_named(tmp_path, told):
    (tmp_path / "0_stats.json").write_text(f'{{"successes": {told}}}')
    assert "0_stats.json counts" in stats_problem(tmp_path / "0.tar", 6)
