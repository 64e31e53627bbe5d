"""Which shards a run has to label, and which of several jobs that share a data set takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliptex.files import AnyPath, exists
from cliptex.labels.ledger import Status, ledger_path, read_ledger
from cliptex.labels.writer import is_committed, label_tar


def is_due(folder: AnyPath, shard: str, redo: bool) -> bool:
    """Whether a shard has no labels in `LABELS/EXPERT` yet.

    With `redo` it is due if the expert failed on some of its images, or if its tar has no ledger:
    a run that labelled it anew may have been killed between the two.
    """
    if not redo:
        return not is_committed(folder, shard)
    return is_unfinished(folder, shard) or failed_images(folder, shard) > 0


def is_unfinished(folder: AnyPath, shard: str) -> bool:
    """Whether a shard's tar of labels has no ledger, and so does not count."""
    return not is_committed(folder, shard) and exists(label_tar(folder, shard))


def failed_images(folder: AnyPath, shard: str) -> int:
    """Images of a shard on which the expert failed, as its ledger says; 0 without a ledger.

    That is: it raised an error, or its answer was no label of its kind.
    """
    if not is_committed(folder, shard):
        return 0
    counts = read_ledger(ledger_path(label_tar(folder, shard))).counts()
    return counts[Status.EXPERT_ERROR] + counts[Status.BAD_LABEL]


def share_of(shards: Sequence[str], rank: int, world_size: int) -> tuple[str, ...]:
    """The shards of job `rank` of `world_size`: every number i with i % world_size == rank.

    The shares of all ranks are disjoint and together complete. Raises ValueError unless
    0 <= rank < world_size.
    """
    if not 0 <= rank < world_size:
        raise ValueError(
            f"rank must lie in 0..world_size-1, got rank {rank} of world_size {world_size}; "
            "the first job has rank 0"
        )
    return tuple(shards[rank::world_size])


def rank_and_world(
    rank: int | None, world_size: int | None, environment: Mapping[str, str]
) -> tuple[int, int]:
    """(rank, world_size) as given, or else as the scheduler's variables say; (0, 1) without any.

    Looked at in this order: SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT (and _MIN, _STEP:
    arrays need not begin at 0), RANK with WORLD_SIZE (torchrun), SLURM_PROCID with SLURM_NTASKS.
    The last counts only within `srun`: a batch script is started once, however many tasks it was
    given, so its number of tasks says nothing about the number of its copies.
    Raises ValueError where only one of rank and world_size is given, or one is out of range.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size belong together: give both or neither")
    if rank is None or world_size is None:
        rank, world_size = _from_environment(environment)
    share_of((), rank, world_size)
    return rank, world_size


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int]:
    def number(name: str, otherwise: int = 0) -> int:
        text = environment.get(name, str(otherwise))
        try:
            return int(text)
        except ValueError:
            raise ValueError(
                f"the environment variable {name} is {text!r}, not a whole number: correct it or "
                "give --rank and --world-size"
            ) from None

    if {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= environment.keys():
        steps = number("SLURM_ARRAY_TASK_ID") - number("SLURM_ARRAY_TASK_MIN")
        return steps // max(1, number("SLURM_ARRAY_TASK_STEP", 1)), number("SLURM_ARRAY_TASK_COUNT")
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        return number("RANK"), number("WORLD_SIZE")
    if {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"} <= environment.keys():
        return number("SLURM_PROCID"), number("SLURM_NTASKS")
    return 0, 1
