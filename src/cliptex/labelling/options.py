"""What a labelling run is told: its settings, its share of the shards, and its Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Settings that all experts of a run share.

    Attributes:
        batch_size: images per call of an expert.
        max_side: longest side in pixels of what is stored.
        codec: codecs, at most one for a kind of label, instead of the default ones; `cliptex label
            plan` compares them.
    """

    batch_size: int = 8
    max_side: int = 512
    codec: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.batch_size), ("max_side", self.max_side)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where the actors run that label, and what each of them gets.

    Attributes:
        address: HOST:PORT of a running cluster; by default RAY_ADDRESS, else a cluster on this
            machine, else one that is started for this run on this machine alone.
        actors: number of actors, each with experts of its own; by default as many as the
            cluster has room for when the run starts.
        cpus: CPUs that an actor reserves; PyTorch uses as many threads.
        gpus: GPUs that an actor reserves, which may be a fraction; by default 1 where the
            cluster has GPUs, else 0.
        logs: show what the actors print.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    logs: bool = False

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"the number of actors must be positive, got {self.actors}")
        if self.cpus <= 0 or (self.gpus or 0.0) < 0:
            raise ValueError(
                "an actor needs a positive share of CPUs and no negative one of GPUs, "
                f"got {self.cpus} and {self.gpus}"
            )


def share_of(shards: Sequence[str], rank: int, world_size: int) -> tuple[str, ...]:
    """The shards of job `rank` of `world_size`: every number i with i % world_size == rank.

    The shares of all ranks are disjoint and together complete. Raises ValueError unless
    0 <= rank < world_size.
    """
    if not 0 <= rank < world_size:
        raise ValueError(
            f"`rank` must lie in 0..`world_size`-1, got {rank} with a world size of {world_size}; "
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
        raise ValueError("`rank` and `world_size` belong together: give both or neither")
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
                "give `rank` and `world_size`"
            ) from None

    if {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= environment.keys():
        steps = number("SLURM_ARRAY_TASK_ID") - number("SLURM_ARRAY_TASK_MIN")
        return steps // max(1, number("SLURM_ARRAY_TASK_STEP", 1)), number("SLURM_ARRAY_TASK_COUNT")
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        return number("RANK"), number("WORLD_SIZE")
    if {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"} <= environment.keys():
        return number("SLURM_PROCID"), number("SLURM_NTASKS")
    return 0, 1
