from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cliptex.cli import main
from cliptex.machine import MissingPackage, need
from cliptex.models.export.run import PACKAGES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "cliptex"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Packages whose distribution has another name; all others are called as they are imported.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "huggingface_hub": "huggingface-hub",
    "open_clip": "open-clip-torch",
    "upath": "universal-pathlib",
    "yaml": "pyyaml",
}
CARD = """\
name: tiny
file: model.onnx
source: a test
licence: none
input: {resize: {rule: squash, height: 8, width: 8}}
output: {type: scalar, unit: 1/m}
"""


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", text)[0] for text in requirements}


REQUIRED = names_of(PROJECT["dependencies"]) | {"aiohttp"}  # it is fsspec[http]
EXTRAS = {
    extra: names_of(wanted)
    for extra, wanted in PROJECT["optional-dependencies"].items()
    if extra != "dev"
}


def distribution(module: str) -> str:
    top = module.split(".")[0]
    return DISTRIBUTIONS.get(top, top)


def plain_imports(source: str) -> Iterator[str]:
    """Packages that `import` statements name, wherever they stand, other than of our own."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (distribution(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield distribution(node.module or "")


def guarded(source: str) -> Iterator[tuple[str | None, str | None]]:
    """(module, extra) of every call of `need`; None for what is no plain string."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            values = (node.args[0], options["extra"])
            first, second = (v.value if isinstance(v, ast.Constant) else None for v in values)
            yield first, second  # pyright: ignore[reportReturnType]


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def test_every_import_is_of_a_required_package() -> None:
    allowed = {*REQUIRED, *sys.stdlib_module_names, "cliptex"}
    found = {(p, name) for p, source in sources() for name in plain_imports(source)}
    assert {pair for pair in found if pair[1] not in allowed} == set()


def test_every_optional_package_is_asked_for_with_an_extra_that_brings_it() -> None:
    asked = {
        (module.split(".")[0], extra)
        for _, source in sources()
        for module, extra in guarded(source)
        if module and extra
    }
    asked |= {(package, "export") for packages in PACKAGES.values() for package in packages}
    for package, extra in asked:
        assert package in EXTRAS[extra], f"the extra {extra} does not bring {package}"
    by_fsspec = {"s3fs"}  # see cliptex.files.as_path
    assert {package for package, _ in asked} | by_fsspec == set().union(*EXTRAS.values())


def test_the_test_sees_imports() -> None:
    source = 'def f():\n    from onnx.helper import x\n    need("ray.util", extra="ray", what="")'
    assert list(plain_imports(source)) == ["onnx"]
    assert list(guarded(source)) == [("ray.util", "ray")]


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert need("json.decoder", extra="experts", what="x").JSONDecoder
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage) as error:
        need("onnxruntime", extra="experts", what="an ONNX expert")
    expected = "an ONNX expert needs the package onnxruntime: pip install 'cliptex[experts]'"
    assert str(error.value) == expected


def test_a_package_that_does_not_load_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halfway.py").write_text("import tokenizers_that_are_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match="halfway, which does not load .*_absent'.: pip"):
        need("halfway", extra="experts", what="x")


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("onnxruntime", "experts check {card} --images {images}", "experts"),
        ("transformers", "experts check hub-depth:org/name --images {images}", "experts"),
        ("diffusers", "experts check marigold:{marigold} --images {images}", "diffusers"),
        ("ray", "label run --data {tar} --expert sobel-edges --out {out} --engine ray", "ray"),
        (
            "datasets",
            "zeroshot --model playroom --dataset hub-classes --root o/n --out {out}",
            "hub",
        ),
        ("transformers", "export playroom --to hf --out {out}", "export"),
        ("onnx", "export playroom --to onnx --out {out}", "export"),
        ("onnxscript", "export playroom --to onnx --out {out}", "export"),
        ("transformers", "export open_clip:roberta-ViT-B-32 --to onnx --out {out}", "experts"),
    ],
)
def test_a_command_without_an_optional_package(
    missing: str, arguments: str, extra: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    words = arguments.format(**make_inputs(tmp_path)).split()
    assert main(words) == 2
    out, errors = capsys.readouterr()
    errors = "".join(line for line in errors.splitlines(True) if line.startswith("error: "))
    assert errors.count("\n") == 1 and out == ""
    assert f"needs the package {missing}: pip install 'cliptex[{extra}]'" in errors
    assert not (tmp_path / "out").exists()


def make_inputs(folder: Path) -> dict[str, Path]:
    """Just enough of each command's inputs to get to the package."""
    from PIL import Image

    from cliptex.shards.write import ShardWriter

    images = folder / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(images / name)
    with ShardWriter(folder / "pairs", prefix="a") as writer:
        writer.add("k", (images / "a.png").read_bytes(), "png", "text")
    card = folder / "card.yaml"
    card.write_text(CARD)
    (folder / "model.onnx").write_bytes(b"")
    marigold = folder / "marigold"
    marigold.mkdir()
    (marigold / "x.safetensors").write_bytes(b"")
    (marigold / "model_index.json").write_text('{"_class_name": "MarigoldNormalsPipeline"}')
    names = {"images": images, "card": card, "marigold": marigold}
    return {**names, "tar": folder / "pairs", "out": folder / "out"}
