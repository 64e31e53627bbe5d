from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cliptex.training.checkpoint import load_notes, load_state, new_folder, save_state


def pair(seed: int, width: int = 4) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
    return network, torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    network(x).square().mean().backward()
    optimizer.step()


def test_going_on_gives_the_same_bits(tmp_path: Path) -> None:
    network, optimizer = pair(0)
    for seed in range(3):
        descend(network, optimizer, seed)
    save_state(tmp_path, network, optimizer, 3, notes={"skipped": 2})
    descend(network, optimizer, 3)
    other, its_optimizer = pair(1)
    assert load_state(tmp_path, other, its_optimizer) == 3
    assert load_notes(tmp_path) == {"skipped": 2}
    descend(other, its_optimizer, 3)
    for mine, theirs in zip(
        network.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_state(tmp_path, *pair(0)) is None
    assert load_notes(tmp_path) == {}


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_state(tmp_path, *pair(0), step, keep=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000100"]
    assert load_state(tmp_path, *pair(0)) == 100


def test_the_best_one_is_kept_too(tmp_path: Path) -> None:
    for step, loss in ((5, 3.0), (10, 1.0), (15, 2.0), (20, 2.5)):
        save_state(tmp_path, *pair(0), step, keep_best=True, notes={"loss": loss})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000020"]


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    save_state(tmp_path, *pair(0), 5)
    target = tmp_path / "checkpoints" / "step-00000005"
    before = (target / "model.safetensors").read_bytes()
    with pytest.raises(OSError), new_folder(target) as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("no space left on device")
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert (target / "model.safetensors").read_bytes() == before


def test_another_network_is_refused_with_the_folder(tmp_path: Path) -> None:
    save_state(tmp_path, *pair(0), 5)
    with pytest.raises(ValueError, match="step-00000005: cannot go on"):
        load_state(tmp_path, *pair(0, width=7))
