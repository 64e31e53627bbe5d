"""`cliptex export` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.cli import main
from cliptex.models.clip import build_clip, save_clip
from cliptex.models.config import ClipConfig, ModelSpec


def test_a_folder_to_open_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = {"context_length": 8, "width": 16, "heads": 2, "layers": 1}
    vision = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
    config = ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=text)
    folder = save_clip(build_clip(ModelSpec(config=config)), tmp_path / "clip")
    out = tmp_path / "out"
    assert main(["export", str(folder), "--to", "open-clip", "--out", str(out)]) == 0
    assert f"largest difference from {folder}: 0" in capsys.readouterr().out
    assert (out / "open_clip_model.safetensors").is_file()


@pytest.mark.slow
def test_playroom_to_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "onnx"
    command = ["export", "playroom", "--to", "onnx", "--out", str(out), "--size", "64", "96"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "largest difference from playroom" in said.out and str(out) in said.out
    assert "64, 96" in said.err
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "model.onnx"]
    assert main(command) == 2
    assert "not empty" in capsys.readouterr().err


def test_refusals_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "playroom", "--to", "open-clip", "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot hold a convolutional stem" in said
    command = ["export", "playroom", "--to", "onnx", "--out", str(tmp_path / "x")]
    assert main([*command, "--heads", "keep"]) == 2
    assert "has no heads.safetensors" in capsys.readouterr().err
