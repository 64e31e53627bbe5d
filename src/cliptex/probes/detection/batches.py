"""What each step sees: a pure function of the step, so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from cliptex.datasets.protocol import DetectionDataset, DetectionItem
from cliptex.probes.detection.config import DetectionProbe
from cliptex.probes.member import own_randomness

ORDER, AUGMENT, SIDE = 0, 1, 2  # streams of random numbers drawn from the data's seed


@dataclass
class Batch:
    """Pictures `images` (B, 3, s, s) uint8 and per picture boxes, labels and perhaps masks."""

    images: Tensor
    targets: list[dict[str, Tensor]]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.images.shape[-2:]
        return height, width

    def to(self, device: torch.device) -> Batch:
        """The batch with its targets on `device`; images stay where they are."""
        moved = [{key: x.to(device) for key, x in target.items()} for target in self.targets]
        return Batch(self.images, moved)


class StepData(Dataset[Batch]):
    """The batch of every step of a training on the pictures at `rows`."""

    def __init__(
        self, dataset: DetectionDataset, rows: Sequence[int], config: DetectionProbe
    ) -> None:
        if len(rows) < min(2, config.batch_size):
            raise ValueError(f"{len(rows)} pictures of {dataset.name} cannot train a detector")
        self._dataset = dataset
        self._rows = np.array(rows, np.int64)
        self._config = config
        self.batch_size = min(config.batch_size, len(rows))
        self.steps_per_epoch = len(rows) // self.batch_size

    def __len__(self) -> int:
        return self.steps_per_epoch * self._config.epochs

    def __getitem__(self, step: int) -> Batch:
        config = self._config
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([config.data_seed, ORDER, epoch]).permutation(self._rows)
        rows = order[position * self.batch_size : (position + 1) * self.batch_size]
        sides = config.train_sizes or (config.size,)
        drawn = np.random.default_rng([config.data_seed, SIDE, step]).integers(len(sides))
        transform = _transform(sides[drawn], config.augment)
        images, targets = [], []
        for index in rows.tolist():
            item = self._dataset.item(index, masks=config.masks)
            with own_randomness(config.data_seed, AUGMENT, step, index):
                image, target = transform(*_tensors(item))
            images.append(image.as_subclass(Tensor))
            targets.append({key: value.as_subclass(Tensor) for key, value in target.items()})
        return Batch(torch.stack(images), targets)

    def batches(self, start: int) -> DataLoader[Batch]:
        """The batches of steps `start`, `start` + 1, ..., in their order."""
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(start, len(self)),
            num_workers=self._config.workers,
        )


def squashed(image: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, side, side) uint8, as in training."""
    return v2.functional.resize(torch.from_numpy(image).permute(2, 0, 1), [side, side])


def _tensors(item: DetectionItem) -> tuple[tv_tensors.Image, dict[str, Tensor]]:
    height, width = item.image.shape[:2]
    target: dict[str, Tensor] = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.from_numpy(item.boxes),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=(height, width),
        ),  # pyright: ignore[reportCallIssue]
        "labels": torch.from_numpy(item.labels),
    }
    if item.masks is not None:
        target["masks"] = tv_tensors.Mask(torch.from_numpy(item.masks))
    return tv_tensors.Image(torch.from_numpy(item.image).permute(2, 0, 1)), target


def _transform(side: int, augment: str) -> v2.Compose:
    """Of a picture and its objects; what leaves the picture is dropped."""
    steps: list[torch.nn.Module] = []
    if augment == "ssd":
        steps += [v2.RandomPhotometricDistort(), v2.RandomIoUCrop()]
    steps += [v2.RandomHorizontalFlip(), v2.Resize([side, side]), v2.SanitizeBoundingBoxes()]
    return v2.Compose(steps)
