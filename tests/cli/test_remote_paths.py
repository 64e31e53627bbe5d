"""URLs on the command line, and what is said about those that cannot be used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from upath import UPath

from cliptex.cli.app import main
from cliptex.shards.write import ShardWriter


def test_shards_are_imported_and_checked_by_url(
    memory: UPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a cat\n")
    (tmp_path / "a.png").write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c"
            "4944415408d763f8ffff3f0005fe02fea135810000000049454e44ae426082"
        )
    )
    source = f"file://{tmp_path}/captions.csv"
    assert main(["shards", "import", "folder", source, "--out", "memory://store/shards"]) == 0
    assert capsys.readouterr().out.endswith("memory://store/shards\n")
    assert main(["shards", "check", "memory://store/shards"]) == 0
    assert "1 images, 1 captions" in capsys.readouterr().out


def test_damage_is_shown_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prefix in ("a", "b"):
        with ShardWriter(tmp_path, prefix=prefix) as writer:
            writer.add("k", b"\x89PNG\r\n\x1a\n" * 300, "png", "text")
    path = tmp_path / "b-00000.tar"
    path.write_bytes(path.read_bytes()[:1000])
    assert main(["shards", "check", "--no-decode", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert "1  truncated" in out and "b-00000.tar: 'k.png' is cut off at byte 1000" in out


def test_a_missing_package_is_the_users_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> type:
        raise ModuleNotFoundError(name)

    registry = import_module("fsspec.registry")  # the package has a variable of that name
    monkeypatch.setattr(registry, "_import_class", absent)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    assert main(["shards", "check", "s3://bucket/shards"]) == 2
    assert "pip install 'cliptex[s3]'" in capsys.readouterr().err
