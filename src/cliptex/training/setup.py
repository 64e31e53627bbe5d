"""From a configuration to what the loop needs: model, optimizer, data, checked and ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cliptex.console import say
from cliptex.data.joined import JoinedDataset
from cliptex.data.pictures import ByteBudgetCache
from cliptex.data.sampler import Sampler, batch_sizes
from cliptex.data.transforms import Augmentation
from cliptex.labels.reader import LabelReader
from cliptex.models.config import Provenance, merged, of_experts, read_provenance
from cliptex.models.device import pick_device
from cliptex.models.flops import measure_peak
from cliptex.shards.dataset import ImageTextShards
from cliptex.tasks import TASKS, Task
from cliptex.training.config import TrainConfig, of_all_ranks
from cliptex.training.distributed import World
from cliptex.training.network import DTYPES, FlopCount, Network, build_network
from cliptex.training.optimizer import Ema, LossScale, build_optimizer
from cliptex.training.parallel import batch_norms, distribute


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training run works with on one rank.

    model holds the weights under their names; engine is what computes with them, the model itself
    or its distributed form. channels: task -> outputs of its head. norms: its batch norms.
    """

    config: TrainConfig
    world: World
    steps: int
    dataset: JoinedDataset
    sampler: Sampler
    tasks: Mapping[str, Task]
    channels: Mapping[str, int]
    model: Network
    engine: nn.Module
    optimizer: torch.optim.Optimizer
    scale: LossScale
    ema: Ema | None
    flops: FlopCount
    norms: Sequence[_BatchNorm] = ()


def prepare(config: TrainConfig, world: World | None = None) -> Run:
    """Open the data, check it against the labels, build the model from the seed.

    world: the ranks of the run; by default only this process, on a GPU if there is one.

    Raises ValueError where tasks, labels, data and lengths do not belong together.
    """
    if world is None:
        world = World(device=pick_device("auto"))
    dataset, sampler, channels, steps = open_data(config, ranks=world.size, tell=world.main)
    config = of_all_ranks(config, world.size)
    model = build_network(config, channels).to(world.device)
    flops = FlopCount(model.clip.config, config.dense, channels)
    flops.check(sampler.sizes)
    engine = distribute(model, config, world)
    added = [module for name, module in model.named_children() if name != "clip"]
    optimizer = build_optimizer(model.clip, added, config)
    return Run(
        config=config,
        world=world,
        steps=steps,
        dataset=dataset,
        sampler=sampler,
        tasks={name: TASKS[name] for name in config.tasks},
        channels=channels,
        model=model,
        engine=engine,
        optimizer=optimizer,
        scale=LossScale(config.precision == "fp16"),
        ema=None if config.ema is None else Ema(model, config.ema),
        flops=flops,
        norms=batch_norms(model),
    )


def device_peak(config: TrainConfig, device: torch.device) -> float:
    """FLOPs a second of `device` at the run's precision: given by `peak_tflops`, or measured."""
    if config.peak_tflops is not None:
        return config.peak_tflops * 1e12
    return measure_peak(device, DTYPES[config.precision])


def provenance_of(run: Run) -> Provenance:
    """What the experts of the run's labels learnt from, and those of the model it starts from."""
    manifests = [reader.manifest for reader in run.dataset.labels.values()]
    experts = of_experts({manifest.expert: manifest.learnt_from for manifest in manifests})
    return merged([read_provenance(run.config.model.name or ""), experts])


def open_data(
    config: TrainConfig, *, ranks: int = 1, tell: bool = True
) -> tuple[JoinedDataset, Sampler, dict[str, int], int]:
    """Samples with labels, their order, task -> outputs of its head, and the number of steps.

    ranks: how many share the work. tell: say how many images have labels. Raises ValueError where
    parts do not fit together.
    """
    shards = ImageTextShards(config.data, caption_key=config.caption_key)
    if len(shards) == 0:
        raise ValueError(f"{config.data}: no samples in the shards; import image-text pairs first")
    labels = _open_labels(config, shards, tell=tell)
    _check_batch(config, len(shards), ranks)
    dataset, sampler = _join(of_all_ranks(config, ranks), shards, labels)
    steps = _length(config, sampler)
    if config.warmup_steps >= steps:
        raise ValueError(
            f"`warmup_steps`: {config.warmup_steps} steps of warm-up in a run of {steps} steps; "
            f"shorten the warm-up (`warmup_steps={steps // 20}`) or train longer"
        )
    channels = {task: reader.kind.channels for task, reader in labels.items()}
    return dataset, sampler, channels, steps


def _check_batch(config: TrainConfig, samples: int, ranks: int) -> None:
    """ValueError, by the batch_size that was given, where batches do not fit data and ranks."""
    given = f"`batch_size`: {config.batch_size}"
    if config.batch_per == "rank":
        given += f" for each of {ranks} ranks"
    batches = batch_sizes(of_all_ranks(config, ranks).batch_size, config.resolution)
    of_size = dict(zip(batches, config.resolution, strict=True))
    (most, wide), (least, narrow) = max(of_size.items()), min(of_size.items())
    if most > samples:
        raise ValueError(
            f"{given} makes a batch of {most} at {wide[0]} x {wide[1]} pixels, larger than the "
            f"data set of {samples} samples; choose a smaller `batch_size`"
        )
    if least < ranks:
        raise ValueError(
            f"{given} makes a batch of {least} at {narrow[0]} x {narrow[1]} pixels, too few for "
            f"{ranks} ranks; choose a larger `batch_size`, or fewer ranks"
        )


def _join(
    config: TrainConfig, shards: ImageTextShards, labels: Mapping[str, LabelReader]
) -> tuple[JoinedDataset, Sampler]:
    dataset = JoinedDataset(
        shards=shards,
        labels=labels,
        augmentation=Augmentation(
            scale=config.crop_scale, ratio=config.crop_ratio, flip=config.flip
        ),
        seed=config.seed,
        confidence=frozenset(config.confidence),
        depth_norm=config.depth_norm,
        cache=ByteBudgetCache(config.cache_bytes),
    )
    sampler = Sampler(
        total=len(shards),
        batch_size=config.batch_size,
        seed=config.seed,
        sizes=config.resolution,
        shards=tuple(len(shards.index(shard)) for shard in shards.shards),
        window=config.shuffle_window,
    )
    return dataset, sampler


def _length(config: TrainConfig, sampler: Sampler) -> int:
    """Steps of the run."""
    if config.samples is not None:
        return sampler.steps_for(config.samples)
    return config.steps if config.steps is not None else sampler.steps(config.epochs or 0)


def _open_labels(
    config: TrainConfig, shards: ImageTextShards, *, tell: bool
) -> dict[str, LabelReader]:
    readers: dict[str, LabelReader] = {}
    for task, expert in config.tasks.items():
        assert config.labels is not None  # the configuration sees to it
        reader = LabelReader(config.labels / expert)
        if reader.manifest.dataset_id != shards.dataset_id:
            raise ValueError(
                f"{reader.folder}: these labels belong to the data set "
                f"{reader.manifest.dataset_id}, but {config.data} is {shards.dataset_id}; label "
                f"{config.data} (`cliptex label run`), or train on the other"
            )
        TASKS[task].kind.expect(reader.kind, f"`tasks`: {task}: {reader.folder}")
        if task in config.confidence and not reader.manifest.confidence:
            raise ValueError(
                f"`confidence`: {reader.folder} stores none; label again with a "
                f"confidence (own or flip), or leave out {task}"
            )
        coverage = reader.coverage(shards)
        if tell:
            say(f"labels for {task}: {expert} covers {coverage:.1%} of {len(shards)} images")
        readers[task] = reader
    return readers
