from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cliptex.files import new_folder
from cliptex.training.checkpoint import Saved, load_state, save_state


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
    assert load_state(tmp_path, other, its_optimizer) == Saved(3, {"skipped": 2})
    descend(other, its_optimizer, 3)
    for mine, theirs in zip(
        network.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_state(tmp_path, *pair(0)) is None


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save_state(tmp_path, *pair(0), step)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000100"]
    assert load_state(tmp_path, *pair(0)) == Saved(100, {})


def test_the_best_one_is_kept_too(tmp_path: Path) -> None:
    for step, loss in ((5, 3.0), (10, 1.0), (15, 2.0), (20, 2.5)):
        save_state(tmp_path, *pair(0), step, keep=1, keep_best=True, notes={"loss": loss})
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


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def two_checkpoints(out: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    network, optimizer = pair(0)
    for step in (1, 2):
        descend(network, optimizer, step)
        save_state(out, network, optimizer, step, notes={"loss": 0.5, "skipped": 0})
    return network, optimizer


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_any_flipped_bit_is_noticed(file: str, tmp_path: Path, capsys) -> None:
    two_checkpoints(tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000002"
    whole = (newest / file).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        flip(newest / file, place)
        saved = load_state(tmp_path, *pair(1))
        assert saved is not None and saved.step == 1, place
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and str(newest / file) in said[0]
        assert "damaged-00000002" in said[0] and "going on from" in said[0]
        assert names(tmp_path) == ["damaged-00000002", "step-00000001"]
        aside = newest.with_name("damaged-00000002")
        (aside / file).write_bytes(whole)
        aside.rename(newest)
    assert load_state(tmp_path, *pair(1)) == Saved(2, {"loss": 0.5, "skipped": 0})


@pytest.mark.parametrize("keep_best", [False, True])
def test_what_is_missing_or_cut_is_noticed__later_saves_stay(keep_best, tmp_path: Path) -> None:
    network, optimizer = two_checkpoints(tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000002"
    (newest / "optimizer.safetensors").unlink()
    (newest / "state.json").write_bytes((newest / "state.json").read_bytes()[:50])
    saved = load_state(tmp_path, *pair(1))
    assert saved is not None and saved.step == 1
    save_state(tmp_path, network, optimizer, 2, keep=1, keep_best=keep_best, notes={"loss": 0.1})
    assert names(tmp_path) == ["damaged-00000002", "step-00000002"]
    saved = load_state(tmp_path, *pair(1))
    assert saved is not None and saved.step == 2


def test_without_a_whole_one_nothing_is_touched(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for step in (1, 2):
        flip(tmp_path / "checkpoints" / f"step-0000000{step}" / "model.safetensors", -1)
    with pytest.raises(ValueError, match="step-00000002/model.*step-00000001/model.*is whole"):
        load_state(tmp_path, *pair(1))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_checkpoints_of_earlier_versions_are_read(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    state.write_text('{"step": 2, "notes": {"loss": 0.5}}\n')
    assert load_state(tmp_path, *pair(1)) == Saved(2, {"loss": 0.5})


def test_files_that_a_later_writer_adds_are_checked_by_name(tmp_path: Path) -> None:
    """Shards of a distributed writer, say: state.json names whatever there is."""
    two_checkpoints(tmp_path)
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    assert sorted(json.loads(state.read_text())["files"]) == [
        "model.safetensors",
        "optimizer.safetensors",
    ]
