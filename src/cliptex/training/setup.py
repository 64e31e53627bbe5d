"""From a configuration to what the loop needs: model, optimizer, data, checked and ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cliptex.console import say
from cliptex.data.cache import ByteBudgetCache
from cliptex.data.joined import JoinedDataset
from cliptex.data.sampler import Sampler
from cliptex.data.transforms import Augmentation
from cliptex.labels.reader import LabelReader
from cliptex.shards.dataset import ImageTextShards
from cliptex.tasks import TASKS, Task
from cliptex.training.config import TrainConfig
from cliptex.training.network import Network, build_network
from cliptex.training.optimizer import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training run works with."""

    config: TrainConfig
    steps: int
    dataset: JoinedDataset
    sampler: Sampler
    tasks: Mapping[str, Task]
    model: Network
    optimizer: torch.optim.Optimizer


def prepare(config: TrainConfig) -> Run:
    """Open the data, check it against the labels, build the model from the seed.

    Raises ValueError where tasks, labels, data and lengths do not belong together.
    """
    shards = ImageTextShards(config.data)
    if len(shards) == 0:
        raise ValueError(f"{config.data}: no samples in the shards; import image-text pairs first")
    labels = _open_labels(config, shards)
    dataset, sampler = _open_data(config, shards, labels)
    steps = config.steps if config.steps is not None else sampler.steps(config.epochs or 0)
    if config.warmup_steps >= steps:
        raise ValueError(
            f"warmup_steps: {config.warmup_steps} steps of warm-up in a run of {steps} steps; "
            "shorten the warm-up or train longer"
        )
    channels = {task: TASKS[task].channels(reader.kind) for task, reader in labels.items()}
    model = build_network(config, channels).to(_device())
    added = [module for name, module in model.named_children() if name != "clip"]
    optimizer = build_optimizer(model.clip, added, config)
    return Run(
        config=config,
        steps=steps,
        dataset=dataset,
        sampler=sampler,
        tasks={name: TASKS[name] for name in config.tasks},
        model=model,
        optimizer=optimizer,
    )


def _open_data(
    config: TrainConfig, shards: ImageTextShards, labels: Mapping[str, LabelReader]
) -> tuple[JoinedDataset, Sampler]:
    dataset = JoinedDataset(
        shards=shards,
        labels=labels,
        augmentation=Augmentation(
            scale=config.crop_scale, ratio=config.crop_ratio, flip=config.flip
        ),
        seed=config.seed,
        cache=ByteBudgetCache(config.cache_bytes),
    )
    sampler = Sampler(
        total=len(shards),
        batch_size=config.batch_size,
        seed=config.seed,
        sizes=config.resolution,
    )
    return dataset, sampler


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _open_labels(config: TrainConfig, shards: ImageTextShards) -> dict[str, LabelReader]:
    if unknown := sorted(set(config.tasks) - set(TASKS)):
        raise ValueError(f"tasks: {unknown} are unknown; there are {', '.join(TASKS)}")
    readers: dict[str, LabelReader] = {}
    for task, expert in config.tasks.items():
        assert config.labels is not None  # the configuration sees to it
        reader = LabelReader(config.labels / expert)
        if reader.manifest.dataset_id != shards.dataset_id:
            raise ValueError(
                f"{reader.folder}: these labels belong to the data set "
                f"{reader.manifest.dataset_id}, but {config.data} is {shards.dataset_id}; label "
                f"this data (`cliptex label run --data {config.data}`) or train on the other"
            )
        if not isinstance(reader.kind, TASKS[task].kind):
            raise ValueError(
                f"tasks: {task} learns from {TASKS[task].kind.__name__} labels, but "
                f"{reader.folder} holds {type(reader.kind).__name__}"
            )
        coverage = reader.coverage(shards)
        say(f"labels for {task}: {expert} covers {coverage:.1%} of {len(shards)} images")
        readers[task] = reader
    return readers
