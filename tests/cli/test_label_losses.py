"""What `label` commands leave out is told; too much of it, or all, fails them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cliptex.cli import app
from cliptex.cli.app import TOO_MANY_FAILURES, USER_ERROR, main
from cliptex.experts import load
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.labels.codecs import png_bytes
from cliptex.labels.kinds import ScalarField, UnitVector
from cliptex.shards.write import ShardWriter


class Maker:
    """Labels every image unless `broken`."""

    broken = False

    def __init__(self, name: str) -> None:
        self.spec = ExpertSpec(
            name=name,
            kind=ScalarField("1/m") if name == "one" else UnitVector(),
            source="a test",
            revision="1",
            weights_sha256="0" * 64,
            licence="none",
        )

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        if self.broken:
            raise RuntimeError("no memory")
        flat = self.spec.name == "one"
        return [Prediction(x.mean(axis=2) if flat else x.astype(np.float32) + 1) for x in images]


@pytest.fixture(autouse=True)
def experts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Maker]:
    made = {name: Maker(name) for name in ("one", "two")}
    for name, expert in made.items():
        monkeypatch.setitem(load.FILES, name, lambda *_, expert=expert: expert)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def write_data(folder: Path, broken: int, count: int = 10) -> Path:
    with ShardWriter(folder, prefix="x", samples_per_shard=6) as writer:
        for i in range(count):
            picture = png_bytes(np.full((6, 8, 3), 20 * i + 9, np.uint8))
            writer.add(f"{i:02d}", b"garbage" if i < broken else picture, "png", "a picture")
    return folder


def run(data: Path, labels: Path, *more: str, experts: tuple[str, ...] = ("one",)) -> int:
    words = ["--data", str(data), "--out", str(labels), "--device", "cpu", "--expert", *experts]
    return main(["label", "run", *words, *more])


def tree(folder: Path) -> dict[str, bytes | None]:
    """Files with their bytes, and folders."""
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}


def test_run__losses_are_summed_up_and_fail_it(tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data", broken=2), tmp_path / "labels"
    for _ in range(2):  # a run that has nothing left to do judges what the store holds
        assert run(data, labels) == TOO_MANY_FAILURES
        printed = capsys.readouterr()
        told = "one: 2 of 10 images have no label: 2 decode-error; such as x-00000.tar:00 (unknown"
        assert told in printed.out
        assert "2 of 10 images" in printed.err and "20.0 %" in printed.err
        assert printed.err.count("\n") == 1
    assert run(data, labels, "--max-failures", "0.2") == 0
    assert "2 decode-error" in capsys.readouterr().out
    assert run(data, labels, "--max-failures", "20") == USER_ERROR


def test_run__zero_labels_are_an_error(tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data", broken=10), tmp_path / "labels"
    for _ in range(2):
        assert run(data, labels, "--max-failures", "1") == USER_ERROR
        assert "holds no label at all: one: 10 of 10 images" in capsys.readouterr().err
    assert main(["label", "status", str(labels), "--data", str(data)]) == 0
    assert "10 x decode-error" in capsys.readouterr().out


def test_run__each_job_judges_its_own_shards(tmp_path: Path) -> None:
    data, labels = write_data(tmp_path / "data", broken=6), tmp_path / "labels"
    assert run(data, labels, "--rank", "1", "--world-size", "2") == 0
    first = ["--rank", "0", "--world-size", "2"]
    assert run(data, labels, *first) == TOO_MANY_FAILURES
    assert run(data, labels, *first, "--max-failures", "1") == 0
    assert run(data, labels) == TOO_MANY_FAILURES, "of all shards 6 of 10 images"


def test_retry__judges_what_stays(tmp_path: Path, experts: dict[str, Maker], capsys) -> None:
    data, labels = write_data(tmp_path / "data", broken=1), tmp_path / "labels"
    assert run(data, labels) == TOO_MANY_FAILURES
    retry = ["label", "retry", str(labels), "--data", str(data), "--device", "cpu"]
    assert main([*retry, "--expert", "one"]) == TOO_MANY_FAILURES
    assert main([*retry, "--expert", "one", "--max-failures", "0.1"]) == 0
    before = tree(tmp_path)
    experts["one"].broken = True
    assert main([*retry, "--expert", "one", "two"]) == USER_ERROR, "the second has no store"
    assert "two" in capsys.readouterr().err and tree(tmp_path) == before


def adopt(tmp_path: Path, data: Path, *more: str, out: str = "labels") -> int:
    words = ["--data", str(data), "--source", str(tmp_path / "source"), "--name", "mine"]
    form = ["--origin", "hand", "--form", "depth", "--scale", "0.1", "--unit", "m"]
    return main(["label", "adopt", *words, *form, "--out", str(tmp_path / out), *more])


def test_adopt__images_without_a_label_count(tmp_path: Path, capsys) -> None:
    data = write_data(tmp_path / "data", broken=0)
    (tmp_path / "source").mkdir()
    for number in range(9):
        picture = png_bytes(np.full((4, 4), 9, np.uint8))
        (tmp_path / "source" / f"{number:02d}.png").write_bytes(picture if number else b"no PNG")
    assert adopt(tmp_path, data) == TOO_MANY_FAILURES
    assert "mine: 2 of 10 images have no label: 2 no-label; such as" in capsys.readouterr().out
    assert adopt(tmp_path, data, "--max-failures", "0.2") == 0


def test_refused_commands_leave_the_disk_as_it_was(tmp_path: Path, capsys) -> None:
    data, labels = write_data(tmp_path / "data", broken=0), tmp_path / "labels"
    page, rows = tmp_path / "deep" / "page.html", tmp_path / "deep" / "rows.jsonl"
    (tmp_path / "source").mkdir()
    colours = png_bytes(np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "source" / "00.png").write_bytes(colours)
    assert run(data, labels, "--max-side", "4", experts=("two",)) == 0
    (tmp_path / "index").mkdir()  # not what is refused here: the index of the images
    capsys.readouterr()
    before = tree(tmp_path)
    out, where = ["--out", str(tmp_path / "new")], ["--data", str(data)]
    voc = ["--root", str(tmp_path / "voc"), "--dataset-kind", "voc", "--out", str(rows)]
    refused = [
        lambda: run(data, tmp_path / "new", experts=("none",)),
        lambda: run(data, tmp_path / "new", "--codec", "png-class-8"),
        lambda: run(data, tmp_path / "new", "--batch-size", "0"),
        lambda: run(data, tmp_path / "new", "--max-failures", "-1"),
        lambda: run(data, tmp_path / "new", "--rank", "2", "--world-size", "2"),
        lambda: run(data, tmp_path / "new", experts=("playroom:depth", "hub-depth:none/none")),
        lambda: run(tmp_path / "source", tmp_path / "new"),
        lambda: run(data, labels, experts=("one", "two")),  # `two` is there with another side
        lambda: main(["label", "retry", str(tmp_path / "new"), *where, "--expert", "one"]),
        lambda: adopt(tmp_path, data, out="new"),  # colours are no depth
        lambda: adopt(tmp_path, data, "--codec", "png-class-8", out="new"),
        lambda: main(["label", "plan", *where, "--expert", "none"]),
        lambda: main(["label", "score", *voc, "--expert", "one"]),
        lambda: main(["label", "score", *voc, "--labels", str(labels / "none")]),
        lambda: main(["label", "view", str(labels / "none"), *where, "--out", str(page)]),
        lambda: main(["label", "agreement", "--depth", str(labels / "two"), *where, *out]
                     + ["--normals", str(labels / "two")]),
    ]  # fmt: skip
    for number, command in enumerate(refused):
        assert command() == app.USER_ERROR, number
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1, (number, said)
        assert tree(tmp_path) == before, (number, said)
