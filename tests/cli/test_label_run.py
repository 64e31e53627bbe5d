"""`cliptex label run` and `retry`, as typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cliptex.cli.app import TOO_MANY_FAILURES, USER_ERROR, main
from cliptex.experts import load
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.kinds import ScalarField
from cliptex.labels.reader import LabelReader
from cliptex.shards.write import ShardWriter


class Moody:
    """Fails on dark images while `bad` holds; counts what it is shown."""

    bad = False
    shown = 0
    spec = ExpertSpec(
        name="moody",
        kind=ScalarField("1/m"),
        source="a test",
        revision="1",
        weights_sha256="0" * 64,
        licence="none",
    )

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        self.shown += len(images)
        if self.bad and any(image[0, 0, 0] == 0 for image in images):
            raise RuntimeError("too dark")
        return [Prediction(image.mean(axis=2)) for image in images]


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Moody:
    """An expert that the command line knows as `moody`."""
    expert = Moody()
    monkeypatch.setitem(load.FILES, "moody", lambda weights, placement, choices: expert)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return expert


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_data(folder: Path) -> Path:
    """Four shards of four images; the first of each is dark."""
    from cliptex.labels.codecs import png_bytes

    with ShardWriter(folder, prefix="x", samples_per_shard=4) as writer:
        for i in range(16):
            pixels = np.full((6, 8, 3), 30 * (i % 4), np.uint8)
            pixels[1] += i
            writer.add(f"{i:02d}", png_bytes(pixels), "png", "a picture")
    return folder


def command(verb: str, data: Path, labels: Path, *more: str) -> int:
    place = ["run", "--out", str(labels)] if verb == "run" else ["retry", str(labels)]
    options = ["--data", str(data), "--expert", "moody", "--device", "cpu"]
    return main(["label", *place, *options, *more])


def test_corrupt_shards_among_good_ones(moody: Moody, tmp_path: Path, capsys) -> None:
    """A tar cut short, one whose middle header is damaged, and an image of garbage."""
    data, labels = write_data(tmp_path / "data"), tmp_path / "labels"
    cut, middle, garbage = (data / f"x-0000{i}.tar" for i in range(3))
    whole = {path: path.read_bytes() for path in (cut, middle)}
    cut.write_bytes(cut.read_bytes()[:2000])
    blocks = bytearray(middle.read_bytes())
    start = blocks.index(b"05.png")
    blocks[start : start + 400] = b"?" * 400
    middle.write_bytes(blocks)
    data_bytes = bytearray(garbage.read_bytes())
    start = data_bytes.index(b"\x89PNG", data_bytes.index(b"09.png"))
    data_bytes[start : start + 40] = b"?" * 40
    garbage.write_bytes(data_bytes)

    assert command("run", data, labels) == USER_ERROR
    printed = capsys.readouterr()
    assert "2 shards done, 0 done before: 7 ok, 1 decode-error" in printed.out
    told = printed.err.splitlines()[-1]
    assert "error: 2 shards have no labels" in told and "same command again" in told
    assert "x-00000.tar: " in told and "x-00001.tar: " in told
    failures = {key: text for _, key, _, text in LabelReader(labels / "moody").failures()}
    assert list(failures) == ["09"] and failures["09"].startswith("unknown-format")
    assert moody.shown == 7 and len(tree(labels)) == 6
    recorded = json.loads((labels / "moody" / "damaged.json").read_bytes())
    assert list(recorded) == ["x-00000.tar", "x-00001.tar"] and "damaged" in recorded["x-00000.tar"]

    before = tree(labels)
    assert command("run", data, labels) == USER_ERROR, "the shards are still damaged"
    assert moody.shown == 7 and tree(labels) == before
    assert "0 shards done, 2 done before: -" in capsys.readouterr().out

    for path, content in whole.items():
        path.write_bytes(content)
    allowed = ["--max-failures", "0.1"]  # one of 16 images is garbage
    assert command("run", data, labels, *allowed) == 0, "once repaired, they alone are labelled"
    assert "2 shards done, 2 done before: 8 ok" in capsys.readouterr().out and moody.shown == 15
    assert command("run", data, tmp_path / "sound", *allowed) == 0
    assert tree(labels) == tree(tmp_path / "sound")


def test_retry(moody: Moody, tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data"), tmp_path / "labels"
    assert command("run", data, tmp_path / "sound") == 0
    moody.bad = True
    assert command("run", data, labels, "--max-side", "512") == TOO_MANY_FAILURES
    assert "4 shards done, 0 done before: 12 ok, 4 expert-error" in capsys.readouterr().out
    moody.bad, moody.shown = False, 0
    assert command("retry", data, labels) == 0
    printed = capsys.readouterr().out
    assert "it failed on 4 images in 4 shards, which are labelled anew (16 images)" in printed
    assert "4 shards done" in printed and moody.shown == 16
    assert tree(labels) == tree(tmp_path / "sound")
    assert command("retry", data, labels) == 0
    assert "nothing to do" in capsys.readouterr().out and moody.shown == 16
    assert command("retry", data, tmp_path / "none") == USER_ERROR


def test_a_data_set_that_is_not_the_old_one_grown__is_refused(
    moody: Moody, tmp_path: Path, capsys
) -> None:
    data, labels = write_data(tmp_path / "data"), tmp_path / "labels"
    assert command("run", data, labels) == 0
    before = tree(labels)
    moved = data / "x-00003.tar"
    content = moved.read_bytes()
    moved.unlink()
    assert command("run", data, labels) == USER_ERROR, "labels without images"
    assert "dataset_id" in capsys.readouterr().err and tree(labels) == before
    moved.write_bytes(content.replace(b"a picture", b"A picture") + bytes(512))
    assert command("run", data, labels) == USER_ERROR, "another shard under an old name"
    assert "dataset_id" in capsys.readouterr().err and tree(labels) == before
    moved.write_bytes(content)
    (data / "x-00004.tar").write_bytes(content)
    assert command("run", data, labels) == 0, "a shard more"
    assert tree(labels).keys() > before.keys()


def test_choices_that_cannot_be(moody: Moody, tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data"), tmp_path / "labels"
    for options, message in (
        (["--device", "cpu,cpu"], "each once"),
        (["--rank", "1"], "both or neither"),
        (["--engine", "ray", "--rank", "0", "--world-size", "2"], "belong to --engine local"),
    ):
        assert command("run", data, labels, *options) == USER_ERROR
        assert message in capsys.readouterr().err
    assert not labels.exists()


def test_codec__is_chosen_and_kept(moody: Moody, tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data"), tmp_path / "labels"
    moody.bad = True
    assert command("run", data, labels, "--codec", "png-scalar-16", "--max-failures", "1") == 0
    assert LabelReader(labels / "moody").manifest.codec == "png-scalar-16"
    assert command("run", data, labels) == USER_ERROR, "another codec is another store"
    assert "codec" in capsys.readouterr().err
    moody.bad = False
    assert command("retry", data, labels) == 0
    stored = LabelReader(labels / "moody").read("x-00000.tar", "00")
    assert stored is not None
    for names, message in (
        (["png-class-8"], "stores no label of these experts"),
        (["png-scalar-10", "png-scalar-16"], "give one"),
    ):
        assert command("run", data, tmp_path / "none", "--codec", *names) == USER_ERROR
        assert message in capsys.readouterr().err


def test_what_is_unknown_is_told_and_may_be_stated(
    moody: Moody, tmp_path: Path, capsys, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data")
    assert command("run", data, tmp_path / "none", "--licence", "MIT") == USER_ERROR
    assert "--licence has no effect" in capsys.readouterr().err
    spec = replace(Moody.spec, licence="unknown", learnt_from=("voc", "unknown"))
    monkeypatch.setattr(Moody, "spec", spec)
    assert command("run", data, tmp_path / "bare") == 0
    told = list(caplog.messages)
    assert "--licence" in told[0] and "--learnt-from" in told[1] and len(told) == 2
    manifest = LabelReader(tmp_path / "bare" / "moody").manifest
    assert (manifest.licence, manifest.learnt_from) == ("unknown", ("voc", "unknown"))
    stated = ["--licence", "MIT", "--learnt-from", "nyu-depth"]
    assert command("run", data, tmp_path / "stated", *stated) == 0
    assert caplog.messages == told, "nothing is unknown"
    manifest = LabelReader(tmp_path / "stated" / "moody").manifest
    assert (manifest.licence, manifest.learnt_from) == ("MIT", ("voc", "nyu-depth"))
    assert command("run", data, tmp_path / "clean", "--learnt-from", "none") == 0
    assert LabelReader(tmp_path / "clean" / "moody").manifest.learnt_from == ("voc",)


def test_unlabelled__ignored_pixels_of_a_real_detector(tmp_path: Path, capsys) -> None:
    from cliptex.labels.codecs import png_bytes
    from cliptex.playroom.render import render
    from cliptex.playroom.scene import sample_scene

    data, maps = tmp_path / "data", {}
    with ShardWriter(data, prefix="x") as writer:
        for i in range(2):
            room = render(sample_scene("home", "train", 3 + i, seed=0), 96, 96)
            writer.add(f"{i}", png_bytes(room.image), "png", "a room")
    options = ["--data", str(data), "--device", "cpu", "--expert", "playroom:segmentation"]
    for unlabelled, number in (("background", 0), ("ignore", 255)):
        out = tmp_path / unlabelled
        assert main(["label", "run", "--out", str(out), *options, "--unlabelled", unlabelled]) == 0
        reader = LabelReader(out / "playroom-segmentation")
        assert reader.manifest.thresholds == {"score": 0.5, "mask": 0.5, "unlabelled": number}
        stored = reader.read("x-00000.tar", "0")
        assert stored is not None
        maps[unlabelled] = stored.array
    painted = maps["background"] > 0
    assert 0.02 < painted.mean() < 0.98
    assert np.array_equal(maps["ignore"], np.where(painted, maps["background"], 255))
    options[-1] = "playroom:depth"
    assert (
        main(["label", "run", "--out", str(tmp_path / "none"), *options, "--unlabelled", "ignore"])
        == USER_ERROR
    )
    assert "--unlabelled ignore has no effect" in capsys.readouterr().err


def test_confidence__none_and_flip(moody: Moody, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    assert command("run", data, tmp_path / "own") == 0
    assert LabelReader(tmp_path / "own" / "moody").manifest.confidence == ""
    assert command("run", data, tmp_path / "flip", "--confidence", "flip") == 0
    reader = LabelReader(tmp_path / "flip" / "moody")
    assert reader.manifest.confidence == "flip consistency"
    stored = reader.read("x-00000.tar", "01", confidence=True)
    assert stored is not None and stored.confidence is not None
