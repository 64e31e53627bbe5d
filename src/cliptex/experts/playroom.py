"""The playroom's own experts, trained on its `studio` domain and shipped with the package.

They play the parts of the paper's Mask R-CNN, DPT and NLL-AngMF (Section 4.1) in the embedded
world: trained on another domain than the one they label, and wrong as often as that makes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.experts.composite import composite_instances
from cliptex.experts.playroom_nets import DenseRegressor, build_detector
from cliptex.experts.protocol import ExpertSpec
from cliptex.files import sha256_file
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

WEIGHTS = Path(__file__).parents[1] / "playroom" / "weights"
TASKS = ("segmentation", "depth", "normals")
IMAGE_SIZE = 128
"""Long side in pixels at which the experts learnt and run."""
MULTIPLE = 16
"""Both sides are rounded to a multiple of the dense networks' coarsest stride."""
THRESHOLDS = {"score": 0.5, "mask": 0.5}
BATCH = 16


def to_network_input(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32 in [0, 1]: long side 128, sides multiples of 16."""
    height, width = image.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    h, w = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width))
    resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


class PlayroomExpert:
    """An `Expert` made of a network and a function from its batch output to labels."""

    def __init__(
        self, spec: ExpertSpec, network: nn.Module, read_output: Callable[..., list[np.ndarray]]
    ) -> None:
        self.spec = spec
        self.network = network.eval()
        self.read_output = read_output

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels of (H, W, 3) uint8 images, each covering the whole image at long side 128."""
        inputs = [to_network_input(image) for image in images]
        labels: list[np.ndarray] = [np.empty(0)] * len(inputs)
        by_shape: dict[torch.Size, list[int]] = {}
        for i, x in enumerate(inputs):
            by_shape.setdefault(x.shape, []).append(i)
        for positions in by_shape.values():
            for start in range(0, len(positions), BATCH):
                chunk = positions[start : start + BATCH]
                outputs = self.read_output(self.network, torch.stack([inputs[i] for i in chunk]))
                for i, label in zip(chunk, outputs, strict=True):
                    labels[i] = label
        return labels


def detect_class_maps(network: nn.Module, images: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) -> one (H, W) uint8 class map an image, composited from instances."""
    maps = []
    for found in network(list(images)):
        maps.append(
            composite_instances(
                found["masks"][:, 0].numpy(),  # (N, H, W) soft, in [0, 1]
                found["labels"].numpy(),
                found["scores"].numpy(),
                size=(images.shape[-2], images.shape[-1]),
                score_threshold=THRESHOLDS["score"],
                mask_threshold=THRESHOLDS["mask"],
            )
        )
    return maps


def regress_disparity(network: nn.Module, images: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) -> one (H, W) float32 disparity in 1/m an image, at least 0.02 (50 m)."""
    return list(network(images)[:, 0].clamp(min=0.02).numpy())


def regress_normals(network: nn.Module, images: Tensor) -> list[np.ndarray]:
    """(B, 3, H, W) -> one (H, W, 3) float32 unit normal map an image."""
    normals = nn.functional.normalize(network(images), dim=1)  # (B, 3, H, W)
    return list(normals.permute(0, 2, 3, 1).contiguous().numpy())


_READERS: dict[str, Callable[..., list[np.ndarray]]] = {
    "segmentation": detect_class_maps,
    "depth": regress_disparity,
    "normals": regress_normals,
}


def build_network(task: str, num_classes: int) -> nn.Module:
    """The untrained network of `task`; `num_classes` (with background) matters to detection."""
    if task == "segmentation":
        return build_detector(num_classes, image_size=IMAGE_SIZE)
    return DenseRegressor(1 if task == "depth" else 3)


def _kind(task: str, classes: Sequence[str]) -> Kind:
    if task == "segmentation":
        return ClassMap(classes=tuple(classes))
    return ScalarField(unit="1/m") if task == "depth" else UnitVector()


def load_playroom_expert(task: str, folder: Path = WEIGHTS) -> PlayroomExpert:
    """The expert of `task` ("segmentation", "depth" or "normals") from `folder/TASK/`.

    Raises ValueError for another task, FileNotFoundError where the weights are absent.
    """
    if task not in TASKS:
        raise ValueError(f"no playroom expert {task!r}: use one of {', '.join(TASKS)}")
    path, card_path = folder / task / "model.safetensors", folder / task / "card.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: weights are absent; `cliptex playroom zoo` builds them")
    card = json.loads(card_path.read_text(encoding="utf-8"))
    classes = card.get("classes", [])
    network = build_network(task, len(classes))
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    spec = ExpertSpec(
        name=f"playroom-{task}",
        kind=_kind(task, classes),
        source="cliptex playroom zoo",
        revision=str(card["revision"]),
        weights_sha256=sha256_file(path),
        licence="Apache-2.0",
        preprocessing={"long_side": IMAGE_SIZE, "multiple": MULTIPLE, "resize": "bilinear"},
        thresholds=THRESHOLDS if task == "segmentation" else {},
        learnt_from=(),
    )
    return PlayroomExpert(spec, network, _READERS[task])
