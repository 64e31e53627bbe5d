"""The split of shards among jobs."""

from __future__ import annotations

import pytest

from cliptex.labelling.options import rank_and_world, share_of

SHARDS = tuple(f"{i:05d}.tar" for i in range(23))


@pytest.mark.parametrize("world_size", [1, 2, 5, 23, 40])
def test_shares__are_disjoint_complete_and_even(world_size: int) -> None:
    shares = [share_of(SHARDS, rank, world_size) for rank in range(world_size)]
    assert sorted(shard for share in shares for shard in share) == list(SHARDS)
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1
    assert all(
        SHARDS.index(shard) % world_size == r for r in range(world_size) for shard in shares[r]
    )


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_out_of_range(rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match="`rank` must lie in"):
        share_of(SHARDS, rank, world_size)
    with pytest.raises(ValueError, match="`rank` must lie in"):
        rank_and_world(rank, world_size, {})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, (3, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "5",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (2, 4),
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0"}, (2, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # a batch script: one copy only
        ({"RANK": "1"}, (0, 1)),
    ],
)
def test_environment(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert rank_and_world(None, None, environment) == expected
    assert rank_and_world(0, 3, environment) == (0, 3), "what is given outweighs variables"


def test_bad_environment_and_halves() -> None:
    with pytest.raises(ValueError, match="RANK is 'one'"):
        rank_and_world(None, None, {"RANK": "one", "WORLD_SIZE": "2"})
    with pytest.raises(ValueError, match="`rank` must lie in"):
        rank_and_world(None, None, {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "4"})
    for pair in ((1, None), (None, 2)):
        with pytest.raises(ValueError, match="both or neither"):
            rank_and_world(*pair, {})
