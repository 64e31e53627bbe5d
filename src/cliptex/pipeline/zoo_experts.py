"""Training of the playroom's three experts on rendered `studio` rooms, with exact labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.console import track
from cliptex.experts.playroom import build_network
from cliptex.playroom.export import iter_renderings
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS
from cliptex.training.checkpoint import load_state, save_state

STUDIO_SIZE = 128
MIN_INSTANCE_PIXELS = 16
"""Smaller instances are left out of the detector's truth: a mask needs a box with an area."""
CHECKPOINT_EVERY = 250


@dataclass(frozen=True, kw_only=True)
class StudioArrays:
    """Rendered studio rooms, memory-mapped: N images of 128x128 with exact labels."""

    image: np.ndarray  # (N, H, W, 3) uint8
    depth: np.ndarray  # (N, H, W) float16, metres along the optical axis
    normals: np.ndarray  # (N, H, W, 3) int8, unit normals times 127
    semantic: np.ndarray  # (N, H, W) uint8, index into playroom CLASSES
    instances: np.ndarray  # (N, H, W) uint8, 0 = none


_DTYPES: dict[str, tuple[type, tuple[int, ...]]] = {
    "image": (np.uint8, (3,)),
    "depth": (np.float16, ()),
    "normals": (np.int8, (3,)),
    "semantic": (np.uint8, ()),
    "instances": (np.uint8, ()),
}


def render_studio(out: Path, *, split: str, count: int, seed: int = 0) -> None:
    """Render `count` studio rooms into one `.npy` file an array under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    size = STUDIO_SIZE
    arrays = {
        name: np.lib.format.open_memmap(
            out / f"{name}.npy", mode="w+", dtype=dtype, shape=(count, size, size, *tail)
        )
        for name, (dtype, tail) in _DTYPES.items()
    }
    rendered = iter_renderings("studio", split, count, size, seed=seed)
    for row, (_, _, rendering) in enumerate(
        track(rendered, total=count, label=f"render studio {split}")
    ):
        arrays["image"][row] = rendering.image
        arrays["depth"][row] = rendering.depth
        arrays["normals"][row] = np.rint(rendering.normals * 127)
        arrays["semantic"][row] = rendering.semantic
        arrays["instances"][row] = rendering.instances
    for array in arrays.values():
        array.flush()


def open_studio(folder: Path) -> StudioArrays:
    """The arrays that `render_studio` wrote, memory-mapped read-only."""
    return StudioArrays(
        **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _DTYPES}
    )


def expert_class_ids() -> np.ndarray:
    """Lookup from playroom semantic ids to the expert's ids: 0 for all it does not know."""
    table = np.zeros(256, dtype=np.uint8)
    for new, name in enumerate(EXPERT_THINGS, start=1):
        table[CLASSES.index(name)] = new
    return table


def detection_target(semantic: np.ndarray, instances: np.ndarray) -> dict[str, Tensor]:
    """torchvision's target of one image: boxes (N, 4) xyxy, labels (N,), masks (N, H, W)."""
    ids = expert_class_ids()[semantic]
    masks, labels, boxes = [], [], []
    for k in np.unique(instances[ids > 0]):
        mask = instances == k
        if mask.sum() < MIN_INSTANCE_PIXELS:
            continue
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        masks.append(mask)
        labels.append(int(ids[rows[0], columns[0]]))
        boxes.append(box)
    height, width = semantic.shape
    return {
        "boxes": torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.tensor(np.array(masks, dtype=np.uint8).reshape(-1, height, width)),
    }


def augment_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast and colour cast of (B, 3, H, W) in [0, 1], one draw an image."""
    batch = len(images)
    draw = torch.rand(batch, 5, generator=generator) * 2 - 1  # (B, 5) in [-1, 1)
    contrast = (1 + 0.25 * draw[:, :1])[..., None, None]
    brightness = (0.1 * draw[:, 1:2])[..., None, None]
    cast = (1 + 0.1 * draw[:, 2:])[..., None, None]
    return (((images - 0.5) * contrast + 0.5 + brightness) * cast).clamp(0, 1)


Loss = Callable[[nn.Module, Tensor, StudioArrays, np.ndarray, np.ndarray], Tensor]


def detection_loss(
    network: nn.Module, images: Tensor, data: StudioArrays, rows: np.ndarray, flip: np.ndarray
) -> Tensor:
    """Sum of torchvision's five Mask R-CNN losses."""
    targets = []
    for row, flipped in zip(rows, flip, strict=True):
        step = -1 if flipped else 1
        targets.append(
            detection_target(data.semantic[row][:, ::step], data.instances[row][:, ::step])
        )
    return torch.stack(list(network(list(images), targets).values())).sum()


def _flipped(array: np.ndarray, flip: np.ndarray) -> np.ndarray:
    return np.where(flip.reshape(-1, *[1] * (array.ndim - 1)), array[:, :, ::-1], array)


def depth_loss(
    network: nn.Module, images: Tensor, data: StudioArrays, rows: np.ndarray, flip: np.ndarray
) -> Tensor:
    """L1 in disparity (1/m)."""
    depth = _flipped(np.asarray(data.depth[rows], dtype=np.float32), flip)
    return F.l1_loss(_dense(network, images)[:, 0], 1 / torch.from_numpy(depth))


def normals_loss(
    network: nn.Module, images: Tensor, data: StudioArrays, rows: np.ndarray, flip: np.ndarray
) -> Tensor:
    """One minus the cosine of the angle between predicted and true normals."""
    normals = _flipped(np.asarray(data.normals[rows], dtype=np.float32), flip)  # (B, H, W, 3)
    normals[flip, ..., 0] *= -1
    truth = torch.from_numpy(normals).permute(0, 3, 1, 2)  # (B, 3, H, W)
    return (1 - F.cosine_similarity(_dense(network, images), truth, dim=1)).mean()


def _dense(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(images.contiguous(memory_format=torch.channels_last)).float()


LOSSES: dict[str, Loss] = {
    "segmentation": detection_loss,
    "depth": depth_loss,
    "normals": normals_loss,
}


def train_expert(
    task: str, studio: StudioArrays, out: Path, *, steps: int, batch: int, seed: int = 0
) -> nn.Module:
    """Train `task`'s network for `steps`; an interrupted run goes on from its last checkpoint."""
    torch.manual_seed(seed)
    network = build_network(task, num_classes=1 + len(EXPERT_THINGS)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    saved = load_state(out, network, optimizer)
    start = 0 if saved is None else saved.step
    loss_of = LOSSES[task]
    for step in track(range(start, steps), label=f"train expert {task}", total=steps, done=start):
        rng = np.random.default_rng((seed, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        torch.manual_seed(int(rng.integers(2**62)))  # torchvision samples proposals globally
        rows = np.sort(rng.choice(len(studio.image), batch, replace=False))
        flip = rng.random(batch) < 0.5
        pixels = _flipped(np.asarray(studio.image[rows]), flip)  # (B, H, W, 3)
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255
        loss = loss_of(network, augment_images(images, generator), studio, rows, flip)
        optimizer.param_groups[0]["lr"] = _one_cycle(step, steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % CHECKPOINT_EVERY == 0 and step + 1 < steps:
            save_state(out, network, optimizer, step + 1)
    return network.eval()


def _one_cycle(step: int, steps: int, *, peak: float = 2e-3, warmup: float = 0.1) -> float:
    """Linear warm-up over the first tenth, then a cosine to zero."""
    position = (step + 1) / steps
    if position < warmup:
        return peak * position / warmup
    return peak * 0.5 * (1 + float(np.cos(np.pi * (position - warmup) / (1 - warmup))))
