"""Detection probes: Mask R-CNN and SSD on the encoder's maps, scored by COCO's precision."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms import v2

from cliptex.console import track
from cliptex.datasets.protocol import DetectionDataset, DetectionItem, refuse_empty
from cliptex.metrics.scorers import Score, Scorer
from cliptex.models.config import MaskRcnnForm, Precision
from cliptex.models.decay import decay_groups
from cliptex.models.detection.mask_rcnn import MaskRcnnHead
from cliptex.models.detection.ssd import SsdHead
from cliptex.models.device import computed_in
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.ap import PROTOCOL, SUFFIX, Overlap, coco_ap, coco_matches
from cliptex.probes.config import DetectionConfig
from cliptex.probes.method import (
    Batch,
    HeadKey,
    HeadLearner,
    Method,
    held_count,
    own_randomness,
)
from cliptex.probes.task import digest_of, place_of

Maps = dict[int, Tensor]
Entries = list[dict[str, Any]]
WEIGHTS, LOSSES = 0, 1  # streams of random numbers drawn from a head's seed
ORDER, AUGMENT, SIDE, SPLIT = 0, 1, 2, 3  # and from the data's seed
MASK_THRESHOLD = 0.5


def read_maps(encoder: FrozenEncoder, images: Tensor, precision: Precision = "fp32") -> Maps:
    """(B, 3, H, W) uint8 of any size -> {stride: (B, C, h, w)} float32, without gradient."""
    with computed_in(precision, encoder.device):
        maps = encoder(images.to(encoder.device).float() / 255).maps
    return {stride: x.detach().float() for stride, x in maps.items()}


def channels_of(encoder: FrozenEncoder) -> dict[int, int]:
    """Widths of the maps by stride, read off a blank picture."""
    side = encoder.image_size or 224
    blank = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    return {stride: x.shape[1] for stride, x in read_maps(encoder, blank).items()}


def build_detector(
    config: DetectionConfig, channels: Mapping[int, int], classes: int
) -> MaskRcnnHead | SsdHead:
    """An untrained head over maps of `channels` by stride; `classes` with the background."""
    if isinstance(config.head, MaskRcnnForm):
        return MaskRcnnHead(channels, classes, config.head)
    return SsdHead(channels, classes, config.head)


class BoxLearner(HeadLearner):
    """Mask R-CNN or SSD; untrained weights depend on the seed alone."""

    module: Any

    def __init__(
        self,
        key: HeadKey,
        channels: Mapping[int, int],
        classes: int,
        config: DetectionConfig,
        device: torch.device,
    ) -> None:
        with own_randomness(key.seed, WEIGHTS):
            head: nn.Module = build_detector(config, channels, classes)
        head.to(device)
        groups = decay_groups(head.parameters(), config.weight_decay, biases=config.decay_biases)
        super().__init__(key, head, torch.optim.AdamW(groups, lr=key.lr))
        self._side = config.resolution

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The sum of the head's losses on maps by stride and a `Pictures` of targets."""
        maps, pictures = batch.features, batch.targets
        device = next(iter(maps.values())).device
        with own_randomness(self.key.seed, LOSSES, step, device=device):
            losses = self.module.losses(maps, pictures.size, pictures.targets)
        return torch.stack(list(losses.values())).sum()

    def predict(self, features: Maps) -> list[list[dict[str, Tensor]]]:
        """Per picture `boxes` (n, 4) in pixels of the square, `labels`, `scores`, perhaps
        `masks`."""
        with torch.no_grad():
            return [self.module.eval().detect(features, (self._side, self._side))]


@dataclass
class Pictures:
    """`images` (B, 3, s, s) uint8, and of each boxes, labels and perhaps masks."""

    images: Tensor
    targets: list[dict[str, Tensor]]

    @property
    def size(self) -> tuple[int, int]:
        """(s, s)."""
        height, width = self.images.shape[-2:]
        return height, width

    def to(self, device: torch.device) -> Pictures:
        """The same with targets on `device`; images stay where they are."""
        moved = [{key: x.to(device) for key, x in target.items()} for target in self.targets]
        return Pictures(self.images, moved)


class StepData(Dataset[Pictures]):
    """The pictures of every step of a training: a pure function of the step."""

    def __init__(
        self, dataset: DetectionDataset, rows: Sequence[int], config: DetectionConfig
    ) -> None:
        if len(rows) < min(2, config.batch_size):
            raise ValueError(f"{len(rows)} pictures of {dataset.name} cannot train a detector")
        self._dataset, self._config = dataset, config
        self._rows = np.array(rows, np.int64)
        self.batch_size = min(config.batch_size, len(rows))
        self.steps_per_epoch = len(rows) // self.batch_size
        self.steps = self.steps_per_epoch * config.epochs

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Pictures:
        config = self._config
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([config.data_seed, ORDER, epoch]).permutation(self._rows)
        rows = order[position * self.batch_size : (position + 1) * self.batch_size]
        drawn = np.random.default_rng([config.data_seed, SIDE, step]).integers(len(config.sides))
        transform = _transform(config.sides[drawn], config.augment)
        images, targets = [], []
        for index in rows.tolist():
            item = self._dataset.item(index, masks=config.masks)
            with own_randomness(config.data_seed, AUGMENT, step, index):
                image, target = transform(*_tensors(item))
            images.append(image.as_subclass(Tensor))
            targets.append({key: value.as_subclass(Tensor) for key, value in target.items()})
        return Pictures(torch.stack(images), targets)


class BoxBatches:
    """The encoder's maps of every step's pictures, and their objects."""

    def __init__(self, encoder: FrozenEncoder, data: StepData, config: DetectionConfig) -> None:
        self._encoder, self._data, self._config = encoder, data, config
        self.steps, self.steps_per_epoch = data.steps, data.steps_per_epoch

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """The batches of steps `start`, `start` + 1, ..., in their order."""
        loader = DataLoader(
            self._data,
            batch_size=None,
            sampler=range(start, self.steps),
            num_workers=self._config.workers,
        )
        for pictures in loader:
            maps = read_maps(self._encoder, pictures.images, self._config.precision)
            yield Batch(maps, pictures.to(self._encoder.device))


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
    steps: list[nn.Module] = []
    if augment == "ssd":
        steps += [v2.RandomPhotometricDistort(), v2.RandomIoUCrop()]
    steps += [v2.RandomHorizontalFlip(), v2.Resize([side, side]), v2.SanitizeBoundingBoxes()]
    return v2.Compose(steps)


def coco_results(
    output: dict[str, Tensor], shape: tuple[int, int], side: int, category_ids: Sequence[int]
) -> Entries:
    """One picture's detections, from pixels of the squashed square to those of the original.

    Args:
        output: `boxes` (n, 4), `labels`, `scores` (n,), perhaps `masks` (n, 1, m, m) of the boxes.
        shape: height and width of the original.
        side: of the square.
        category_ids: of labels 1, 2, ...
    """
    height, width = shape
    boxes = output["boxes"] * torch.tensor([width, height, width, height]) / side
    codes = _codes(output["masks"], boxes, shape) if "masks" in output else None
    left, top, right, bottom = boxes.unbind(1)
    corners = torch.stack([left, top, right - left, bottom - top], 1).tolist()
    entries: Entries = []
    for i, (label, score) in enumerate(
        zip(output["labels"].tolist(), output["scores"].tolist(), strict=True)
    ):
        entry = {"category_id": category_ids[label - 1], "bbox": corners[i], "score": score}
        entries.append(entry if codes is None else {**entry, "segmentation": codes[i]})
    return entries


def _codes(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Run-length codes of soft masks of boxes, pasted into the picture and cut at a half."""
    from faster_coco_eval.core import mask as codes

    if not len(masks):
        return []
    pasted = paste_masks_in_image(masks, boxes, shape)[:, 0] > MASK_THRESHOLD  # (n, H, W)
    planes = pasted.numpy().astype(np.uint8).transpose(1, 2, 0)  # (H, W, n)
    found: Any = codes.encode(np.asfortranarray(planes))  # of a stack of planes: a list
    return found


class BoxScorer:
    """Average precision of what one head found, over the pictures of `truth`."""

    not_finite = 0

    def __init__(self, truth: Callable[[], Any], overlaps: Sequence[Overlap]) -> None:
        """`truth`: gives COCO's dictionary of the pictures."""
        self.entries: Entries = []
        self._truth, self._overlaps = truth, overlaps

    def add(self, prediction: Any, target: object) -> None:
        """What was found of one picture, as COCO's results (`Entries`)."""
        self.entries += prediction

    def metrics(self) -> dict[str, Score]:
        """AP by size and overlap; none for a size that no object has."""
        found = coco_ap(self._truth(), self.entries, self._overlaps)
        values = {name: Score(v, "higher") for name, v in found.items() if not math.isnan(v)}
        chosen = f"ap_{SUFFIX[self._overlaps[-1]]}"  # of masks, where there are any
        return {chosen: Score(found[chosen], "higher"), **values}

    def per_image(self) -> dict[str, Any]:
        """The matches behind the averages."""
        truth = self._truth()
        return {
            f"ap_{SUFFIX[overlap]}": coco_matches(truth, self.entries, overlap)
            for overlap in self._overlaps
        }

    def protocol(self) -> dict[str, object]:
        return {"ap": PROTOCOL}


class BoxSplit:
    """One split of a data set of objects."""

    task = "detection"

    def __init__(self, dataset: DetectionDataset, config: DetectionConfig) -> None:
        self.name, self.place, self.identity = dataset.name, place_of(dataset), dataset.classes
        refuse_empty(dataset, self.place)
        refuse_empty(dataset.with_objects(), self.place, "no object to find")
        self.dataset, self.config = dataset, config
        self._truth = cache(dataset.ground_truth)  # all heads are scored against one

    def __len__(self) -> int:
        return len(self.dataset)

    def check(self) -> None:
        """Nothing more."""

    def scorers(self, rows: Sequence[int] | None, protocols: int | None) -> list[Scorer]:
        """One, of boxes, and masks where there are any."""
        chosen = tuple(range(len(self)) if rows is None else rows)
        overlaps: tuple[Overlap, ...] = ("bbox", "segm") if self.config.masks else ("bbox",)
        return [BoxScorer(partial(self._truth, chosen), overlaps)]

    def picture(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.dataset.item(index, masks=False).image


class DetectionProbe(Method):
    """Heads of one kind, all seeds and rates on one encoder pass per batch."""

    train: BoxSplit
    config: DetectionConfig
    mean_over_seeds = True

    @classmethod
    def split_of(
        cls, dataset: Any, config: DetectionConfig, truths: Mapping[str, Any] | None = None
    ) -> BoxSplit:
        """As `BoxSplit`."""
        return BoxSplit(dataset, config)

    def rows(self) -> list[int]:
        """Pictures with objects."""
        return list(self.train.dataset.with_objects())

    def hold_out(self, rows: list[int], keys: Sequence[HeadKey]) -> tuple[list[int], list[int]]:
        """By the data seed."""
        count = held_count(len(rows), self.config.holdout)
        rng = np.random.default_rng([self.config.data_seed, SPLIT])
        order = rng.permutation(rows).tolist()
        return sorted(order[count:]), sorted(order[:count])

    def begin(
        self, keys: Sequence[HeadKey], rows: Sequence[int]
    ) -> tuple[list[BoxLearner], BoxBatches]:
        """As in `Method`."""
        self._learnt = len(rows)
        data = StepData(self.train.dataset, rows, self.config)
        channels, classes = channels_of(self.encoder), len(self.train.dataset.classes) + 1
        device = self.encoder.device
        learners = [BoxLearner(key, channels, classes, self.config, device) for key in keys]
        return learners, BoxBatches(self.encoder, data, self.config)

    def state(self, keys: Sequence[HeadKey], rows: Sequence[int]) -> dict[str, object]:
        """Configuration, encoder, heads and pictures; of 16 pictures also what is in them."""
        dataset = self.train.dataset

        def arrays(place: int) -> list[np.ndarray]:
            item = dataset.item(rows[place], masks=self.config.masks)
            found = (item.image, item.boxes, item.labels, item.masks)
            return [array for array in found if array is not None]

        ids = json.dumps([dataset.image_ids[i] for i in rows]).encode()
        return {
            **self.config.protocol(),
            "keys": [key.name for key in keys],
            "encoder": self.fingerprint,
            "dataset": dataset.name,
            "classes": list(dataset.classes),
            "pictures": hashlib.sha256(ids).hexdigest(),
            "content": digest_of(dataset.name, len(rows), arrays),
        }

    def read(
        self, split: BoxSplit, rows: Sequence[int] | None, label: str
    ) -> Iterator[tuple[Maps, Sequence[tuple[int, tuple[int, int], Sequence[int]]]]]:
        """Maps of squashed pictures; the image's id, its size, and the categories of labels."""
        chosen = list(range(len(split)) if rows is None else rows)
        dataset, config = split.dataset, self.config
        for start in track(range(0, len(chosen), config.extract_batch), label=label):
            chunk = chosen[start : start + config.extract_batch]
            pictures = [split.picture(index) for index in chunk]
            images = torch.stack([squashed(p, config.resolution) for p in pictures])
            sizes = [(p.shape[0], p.shape[1]) for p in pictures]
            answers = [
                (dataset.image_ids[i], size, dataset.category_ids)
                for i, size in zip(chunk, sizes, strict=True)
            ]
            yield read_maps(self.encoder, images, config.precision), answers

    def add(self, head: Any, out: dict[str, Tensor], answer: Any, scorers: Any) -> None:
        """What was found of one picture, in its own pixels."""
        image_id, size, categories = answer
        one = {key: value.cpu() for key, value in out.items()}
        entries = coco_results(one, size, self.config.resolution, categories)
        for scorer in scorers:
            scorer.add([{"image_id": image_id, **entry} for entry in entries], None)

    def protocol(self, key: HeadKey) -> dict[str, object]:
        """As in `Method`."""
        return {
            **self.config.protocol(),
            "resolution": self.config.resolution,
            "classes": len(self.train.dataset.classes),
            "train_images": self._learnt,
            "mask_threshold": MASK_THRESHOLD if self.config.masks else None,
        }
