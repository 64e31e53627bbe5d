from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cliptex.cli import app, main
from cliptex.cli.errors import in_flags, now_running
from cliptex.cli.help import option_names
from cliptex.cli.train import options_of
from cliptex.console import say
from cliptex.results import Result, append_results
from cliptex.shards.write import ShardWriter

IN_FULL = [
    ("lable run", "lable is no command of `cliptex` (did you mean label?); see `cliptex --help`"),
    (
        "label rnu",
        "rnu is no command of `cliptex label` (did you mean run?); see `cliptex label --help`",
    ),
    ("experts --bar", "--bar is no option of `cliptex experts`; see `cliptex experts --help`"),
    (
        "label stats X --data Y",
        "--data is no option of `cliptex label stats`; see `cliptex label stats --help`",
    ),
    (
        "label stats X Y",
        "Y: `cliptex label stats` takes no such argument; see `cliptex label stats --help`",
    ),
    (
        "label run --expert a",
        "`cliptex label run` needs --data, --out; see `cliptex label run --help`",
    ),
    (
        "experts check",
        "`cliptex experts check` needs NAME, --images; see `cliptex experts check --help`",
    ),
    (
        "demo --presett quick",
        "--presett is no option of `cliptex demo` (did you mean --preset?); see `cliptex demo "
        "--help`",
    ),
    (
        "label run --data a --expert b --out c --batch-size x",
        "--batch-size: 'x' is no whole number; see `cliptex label run --help`",
    ),
    ("demo --preset", "--preset needs 1 value; see `cliptex demo --help`"),
    (
        "demo --preset ful",
        "--preset ful: choose one of full, quick (did you mean full?); see `cliptex demo --help`",
    ),
    ("demo --seed x", "--seed: 'x' does not fit [INT [INT ...]]; see `cliptex demo --help`"),
    (
        "export playroom --to onnx --out x --size 3",
        "--size: 2 values, not 1; see `cliptex export --help`",
    ),
    (
        "train paper --tower vit-b16 --out x --data y --batchsize 3",
        "--batchsize is no option of `cliptex train paper` (did you mean --batch-size?); "
        "see `cliptex train paper --help`",
    ),
]


@pytest.mark.parametrize(("line", "said"), IN_FULL, ids=[line for line, _ in IN_FULL])
def test_what_is_said(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def commands(tree: app.Commands, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, target in tree.items():
        yield (*above, name)
        if isinstance(target, dict):
            yield from commands(target, (*above, name))


@pytest.mark.parametrize("command", list(commands(app.COMMANDS)), ids=" ".join)
def test_of_every_command_an_unknown_option_is_one_line(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"cliptex {' '.join(command)}"
    words = ["paper"] if command == ("train",) else []
    assert main([*command, *words, "--nonsense", "1"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1
    # where a positional argument is missing, that is said first
    name = " ".join([name, *words])
    first = (f"error: --nonsense is no option of `{name}`", f"error: `{name}` needs ")
    assert errors.startswith(first) and errors.endswith(f"; see `{name} --help`\n")


def test_without_tyros_hook_its_box_stays(monkeypatch, capsys) -> None:
    from tyro import _errors

    monkeypatch.delattr(_errors, "on_parse_error")
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--nonsense"])
    assert stop.value.code == 2 and "--nonsense" in capsys.readouterr().err


# Commands that write, with what they need before they do; `bad` lies below a file.
WRITERS = [
    "shards import folder {captions} --images {images}/a --out {bad}",
    "label run --data {pairs} --expert sobel-edges --out {bad}",
    "label view {labels} --data {pairs} --out {bad}/x.html",
    "probe --model playroom --dataset folder --root {images} --out {bad}/r.jsonl",
    "zeroshot --model playroom --dataset folder --root {images} --out {bad}/r.jsonl",
    "export playroom --to open-clip --out {bad}",
    "blend playroom playroom --out {bad}",
    "train paper --tower vit-b16 --data {pairs} --out {bad}",
    "playroom export home --out {bad} --count 1",
    "playroom export web --out {bad} --count 1",
    "datasets overlap --data {pairs} --dataset folder --root {images} --out {bad}/r.jsonl",
    "demo --preset quick --out {bad}",
    "playroom zoo --out {bad}",
    "report {run} --out {bad}/x.html",
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    images, run = folder / "images", folder / "run"
    for split in ("train", "val"):
        for label in "ab":
            (images / split / label).mkdir(parents=True)
            for n in range(2):
                colour = (n, ord(label), len(split))
                Image.new("RGB", (16, 16), colour).save(images / split / label / f"{n}.png")
    (folder / "captions.csv").write_text("image,caption\n0.png,one\n1.png,two\n")
    with ShardWriter(folder / "pairs", prefix="x") as writer:
        writer.add("k", (images / "train" / "a" / "0.png").read_bytes(), "png", "text")
    words = ["--data", str(folder / "pairs"), "--out", str(folder / "labels")]
    assert main(["label", "run", "--expert", "sobel-edges", *words]) == 0
    run.mkdir()
    row = {"model": "m", "probe": None, "task": "depth", "dataset": "nyu-depth", "metric": "absrel"}
    row["better"] = "lower"
    append_results(run / "results.jsonl", [Result(**row, value=0.1, n=1, seed=0)])
    (folder / "file").write_text("")
    names = {"images": images, "run": run, "captions": folder / "captions.csv"}
    found = {name: folder / name for name in ("pairs", "labels")}
    return {**names, **found, "bad": folder / "file" / "below"}


@pytest.mark.parametrize("line", WRITERS, ids=lambda line: " ".join(line.split()[:2]))
def test_an_out_that_cannot_be_made_is_one_line(
    line: str, inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    line = line.replace("{images}/a", "{images}/train/a")
    assert main(shlex.split(line.format(**inputs))) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1 and str(inputs["bad"].parent) in said[0]
    assert "Errno" not in said[0] and "give another path" in said[0]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("experts check deeplab_voc12", "deeplab_voc21"),
        ("experts check playroom:dept", "depth"),
        ("experts check hub-dept:Intel/dpt-large", "hub-depth:Intel/dpt-large"),
        ("export playrom --to timm", "playroom"),
        ("export openclip:ViT-B-32 --to timm", "open_clip"),
        ("export open_clip:ViT-B_32 --to timm", "ViT-B-32"),
        ("export open_clip:ViT-B-32/opnai --to timm", "openai"),
        ("export timm:vit_tiny_patch16_244 --to timm", "vit_tiny_patch16_224"),
    ],
)
def test_a_misspelt_name_brings_the_nearest(
    name: str, meant: str, inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rest = f"--images {inputs['images']}" if name.startswith("experts") else "--out absent"
    assert main([*name.split(), *rest.split()]) == 2
    assert f"(did you mean {meant}?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lower `batch_size`, or else", "lower --batch-size, or else"),
        ("`batch_size` 0: too few", "--batch-size 0: too few"),
        ("set `batch_size=4`", "set `--batch-size 4`"),
        ("set `augmentation=False`", "set --no-augmentation"),
        ("needs `augmentation=True`", "needs --augmentation"),
        ("`loss_weights.depth` is 0", "--loss-weights.depth is 0"),
        ("a smaller `learning_rates`", "a smaller --lr"),
        ("`patch_size` and `cliptex label run`", "`patch_size` and `cliptex label run`"),
        ("batch_size", "batch_size"),
    ],
)
def test_in_flags__names_the_options_of_the_running_command(text: str, said: str) -> None:
    names = ("--batch-size", "--augmentation", "--no-augmentation", "--loss-weights.depth", "--lr")
    now_running(lambda: names)
    assert in_flags(text) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("demo", "take a smaller --jobs, or other `layers`"),
        (
            "train paper --tower vit-b16 --out x --data y",
            "take a smaller `jobs`, or other `layers`",
        ),
    ],
)
def test_errors_below_name_fields_and_the_command_line_its_options(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("take a smaller `jobs`, or other `layers`")

    monkeypatch.setattr("cliptex.pipeline.demo.run_demo", fail)
    monkeypatch.setattr("cliptex.training.loop.train", fail)
    assert main(shlex.split(line)) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_messages_below_name_options_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tell(*_: object) -> None:
        say("fewer `jobs` need less memory")
        raise ValueError("stop")

    monkeypatch.setattr("cliptex.pipeline.demo.run_demo", tell)
    monkeypatch.setenv("CLIPTEX_QUIET", "")
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "fewer --jobs need less memory\nerror: stop\n"
    say("`jobs`")
    assert capsys.readouterr().err == "`jobs`\n"


def test_nested_keys_of_a_recipe_are_options() -> None:
    names = [name for part in options_of("paper") for name in option_names(part)]
    assert {"--around.divisor", "--loss-weights.depth", "--no-tensorboard"} <= set(names)
