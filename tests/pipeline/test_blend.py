"""Weights between two CLIPs."""

from __future__ import annotations

import pytest
import torch

from cliptex.cli import main
from cliptex.models.clip import load_clip, random_clip, save_clip
from cliptex.models.config import ClipConfig, of_experts, read_provenance, write_provenance
from cliptex.pipeline.blend import blend

TEXT = {"context_length": 8, "width": 16, "heads": 1, "layers": 1, "vocab_size": 64}
VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    """Two random ResNets, the second after one batch of statistics and with an expert's record."""
    config = ClipConfig(embed_dim=8, vision_cfg=VISION, text_cfg=TEXT)
    start, end = random_clip(config, 0), random_clip(config, 1)
    end.train()(torch.rand(2, 3, 32, 32), torch.ones(2, 8, dtype=torch.long))
    for clip, name in ((start, "start"), (end, "end")):
        save_clip(clip, tmp_path / name)
    write_provenance(tmp_path / "end", of_experts({"dpt": ("nyu-depth",)}))
    return str(tmp_path / "start"), str(tmp_path / "end")


def test_ends_are_the_models_and_the_middle_is_their_mean(pair, tmp_path) -> None:
    folders = blend(*pair, (0, 0.5, 1), tmp_path / "out")
    assert [folder.name for folder in folders] == ["blend-0", "blend-0.5", "blend-1"]
    states = [load_clip(name).state_dict() for name in (*pair, *folders)]
    before, after, first, middle, last = states
    for name, tensor in before.items():
        assert torch.equal(first[name], tensor) and torch.equal(last[name], after[name])
        if tensor.is_floating_point():
            torch.testing.assert_close(middle[name], (tensor + after[name]) / 2)
        else:
            assert torch.equal(middle[name], after[name])
    counts = [name for name in before if name.endswith("num_batches_tracked")]
    assert counts and all(before[name] != after[name] for name in counts)
    learnt = [read_provenance(folder).learnt_from for folder in folders]
    assert learnt == [(), ("nyu-depth",), ("nyu-depth",)]


def test_command(pair, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    assert main(["blend", *pair, "--out", out, "--alpha", "0.25", "0.75"]) == 0
    assert capsys.readouterr().out.split() == [f"{out}/blend-0.25", f"{out}/blend-0.75"]


def test_other_architectures_and_shares_are_refused(pair, tmp_path) -> None:
    other = ClipConfig(embed_dim=8, vision_cfg={**VISION, "width": 16}, text_cfg=TEXT)
    save_clip(random_clip(other, 0), tmp_path / "other")
    with pytest.raises(ValueError, match="differ in vision_cfg: only weights of one architecture"):
        blend(pair[0], str(tmp_path / "other"), (0.5,), tmp_path / "out")
    with pytest.raises(ValueError, match=r"alpha: .* from 0 to 1, not \[1.5\]"):
        blend(*pair, (1.5,), tmp_path / "out")
    assert not (tmp_path / "out").exists()
