"""The playroom's own experts, trained on its `studio` domain and shipped with the package.

They play the parts of the paper's Mask R-CNN, DPT and NLL-AngMF (Section 4.1) in the embedded
world: trained on another domain than the one they label, and wrong as often as that makes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from cliptex.experts.composite import composite_instances, unlabelled_id
from cliptex.experts.playroom_nets import DenseRegressor, build_detector
from cliptex.experts.protocol import ExpertSpec, Prediction, Unlabelled
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.experts.torchvision_detectors import detect_whole
from cliptex.files import sha256_file
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector

WEIGHTS = Path(__file__).parents[1] / "playroom" / "weights"
TASKS = ("segmentation", "depth", "normals")
IMAGE_SIZE = 128
"""Long side in pixels at which the experts learnt and run."""
MULTIPLE = 16
"""Both sides are rounded to a multiple of the dense networks' coarsest stride."""
THRESHOLDS = {"score": 0.5, "mask": 0.5}


def to_network_input(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32 in [0, 1]: long side 128, sides multiples of 16."""
    height, width = image.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    h, w = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width))
    resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def _each(network: nn.Module, images: Tensor) -> list[Outputs]:
    """A dense network's output, image by image."""
    return [{"output": output} for output in network(images)]  # (C, H, W) each


def _read_instances(found: Outputs, size: tuple[int, int], *, unlabelled: Unlabelled) -> Prediction:
    """A class map of the network's size, composited from instances."""
    masks = found["masks"][:, 0].numpy()  # (n, H, W) soft, in [0, 1]
    class_map = composite_instances(
        masks,
        found["labels"].numpy(),
        found["scores"].numpy(),
        size=masks.shape[1:],
        score_threshold=THRESHOLDS["score"],
        mask_threshold=THRESHOLDS["mask"],
        unlabelled=unlabelled,
    )
    return Prediction(class_map)


def _read_disparity(found: Outputs, size: tuple[int, int]) -> Prediction:
    """(H, W) float32 disparity in 1/m, at least 0.02 (50 m)."""
    return Prediction(found["output"][0].clamp(min=0.02).numpy())


def _read_normals(found: Outputs, size: tuple[int, int]) -> Prediction:
    """(H, W, 3) float32 unit normals."""
    normals = nn.functional.normalize(found["output"], dim=0)  # (3, H, W)
    return Prediction(normals.permute(1, 2, 0).contiguous().numpy())


def _adapter(task: str, unlabelled: Unlabelled) -> Adapter:
    if task == "segmentation":
        read = partial(_read_instances, unlabelled=unlabelled)
        return Adapter(to_network_input, detect_whole, read)
    return Adapter(to_network_input, _each, _read_disparity if task == "depth" else _read_normals)


def build_network(task: str, num_classes: int) -> nn.Module:
    """The untrained network of `task`; `num_classes` (with background) matters to detection."""
    if task == "segmentation":
        return build_detector(num_classes, image_size=IMAGE_SIZE)
    return DenseRegressor(1 if task == "depth" else 3)


def _kind(task: str, classes: Sequence[str]) -> Kind:
    if task == "segmentation":
        return ClassMap(classes=tuple(classes))
    return ScalarField(unit="1/m") if task == "depth" else UnitVector()


def load_playroom_expert(
    task: str,
    folder: Path = WEIGHTS,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    unlabelled: Unlabelled = "background",
) -> TorchExpert:
    """The expert of `task` ("segmentation", "depth" or "normals") from `folder/TASK/`.

    `unlabelled` says what pixels without an instance become in class maps.
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
    kind = _kind(task, classes)
    network.load_state_dict({name: x.float() for name, x in load_file(path).items()})
    spec = ExpertSpec(
        name=f"playroom-{task}",
        kind=kind,
        source="cliptex playroom zoo",
        revision=str(card["revision"]),
        weights_sha256=sha256_file(path),
        licence="Apache-2.0",
        preprocessing={"long_side": IMAGE_SIZE, "multiple": MULTIPLE, "resize": "bilinear"},
        thresholds=THRESHOLDS | {"unlabelled": unlabelled_id(unlabelled, int(kind.invalid))}
        if task == "segmentation"
        else {},
        learnt_from=(),
    )
    return TorchExpert(spec, network, _adapter(task, unlabelled), placement)
