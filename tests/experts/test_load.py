"""Experts of other packages: the example of docs/experts.md, installed and used as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cliptex.cli.app import main
from cliptex.experts.load import known_experts, load_expert
from cliptex.labels.codecs import png_bytes
from cliptex.labels.reader import LabelReader
from cliptex.shards.write import ShardWriter

PAGE = Path(__file__).parents[2] / "docs" / "experts.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's Python block as the module that its TOML block names, as a package on the path."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split("## A new expert")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (toml,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    assert "cliptex.experts" in toml and len(code.strip().splitlines()) < 35
    name, module, function = re.findall(r'(\w+) = "([\w.]+):(\w+)"', toml)[0]
    package = tmp_path / "site" / module.partition(".")[0]
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / f"{module.rpartition('.')[2]}.py").write_text(code)
    info = tmp_path / "site" / f"{package.name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 1\n")
    entry = f"[cliptex.experts]\n{name} = {module}:{function}\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_the_example_of_the_page(installed: None, tmp_path: Path, capsys) -> None:
    assert "brightness" in known_experts()
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    (found,) = load_expert("brightness").predict([image])
    np.testing.assert_allclose(found.label, image.mean(axis=2), rtol=1e-6)
    data, pictures = tmp_path / "data", tmp_path / "pictures"
    pictures.mkdir()
    with ShardWriter(data, prefix="x") as writer:
        for number in range(2):
            png = png_bytes(np.roll(image, number, axis=1))
            writer.add(f"{number}", png, "png", "")
            (pictures / f"{number}.png").write_bytes(png)
    assert main(["experts", "check", "brightness", "--images", str(pictures)]) == 0
    assert "FAIL" not in capsys.readouterr().out
    words = ["--data", str(data), "--expert", "brightness", "--out", str(tmp_path / "labels")]
    assert main(["label", "run", *words]) == 0
    stored = LabelReader(tmp_path / "labels" / "brightness").read("x-00000.tar", "0")
    assert stored is not None
    np.testing.assert_allclose(stored.array, image.mean(axis=2), atol=256 / 2044)
