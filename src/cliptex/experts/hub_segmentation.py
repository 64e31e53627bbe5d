"""Segmentation networks of the Hugging Face Hub as experts.

Networks that answer with queries (Mask2Former, MaskFormer, OneFormer, EoMT, RF-DETR) give class
and mask logits per query; the libraries' post-processing, which lets worse masks paint over better
ones, is not used. A query's score is

- RF-DETR: the sigmoid of its best class logit;
- the others: the softmax probability of its best class (of all classes and "no object") times the
  mean mask probability over the label's pixels where that is at least 0.5, which is what these
  libraries rank instances by.

Masks are interpolated as logits, bilinearly, at the label's size, after the queries whose class
score misses the threshold are dropped; `composite.predict_instances` does the rest. Instance and
panoptic checkpoints differ only in their classes: background, class 0, is put before them.
SegFormer's logits are a class map already and get no background.

Every image is resized as its processor's size says, alone, and never padded to a batch; what a
network must pad (EoMT to its square, the pyramids to whole mask pixels) is cut off its masks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cliptex.experts.composite import DETECTOR_SCORE, predict_instances, unlabelled_id
from cliptex.experts.hub import (
    Checkpoint,
    benchmarks_of,
    cut_out,
    import_transformers,
    licence_of,
    load_config,
    load_network,
    load_processor,
    open_checkpoint,
)
from cliptex.experts.protocol import MAX_SIDE, ExpertSpec, Prediction, Unlabelled
from cliptex.experts.torch_expert import Adapter, Outputs, Placement, TorchExpert
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import Box, ClassMap
from cliptex.labels.sampling import WHOLE, sample_bilinear

THRESHOLDS = {"score": 0.5, "mask": 0.5}
SOFTMAX = "softmax probability of the class"
TASK = "panoptic"  # what OneFormer is asked for: its instance answer knows no walls and no sky
UNNAMED = frozenset({"N/A", "background", "__background__"})
# Classes by which the data a checkpoint was trained on is recognised.
_COCO = frozenset({"person", "zebra", "giraffe", "toothbrush"})
_ADE20K = frozenset({"wall", "building", "sky", "chandelier", "sconce"})

Scores = Literal["softmax", "sigmoid", "semantic"]


@dataclass(frozen=True)
class Family:
    """What one architecture needs.

    network: the name of its class in transformers.
    scores: how class logits become scores; see the module's text.
    """

    network: str
    scores: Scores


FAMILIES = {
    "mask2former": Family("Mask2FormerForUniversalSegmentation", "softmax"),
    "maskformer": Family("MaskFormerForInstanceSegmentation", "softmax"),
    "oneformer": Family("OneFormerForUniversalSegmentation", "softmax"),
    "eomt": Family("EomtForUniversalSegmentation", "softmax"),
    "rf_detr": Family("RfDetrForInstanceSegmentation", "sigmoid"),
    "segformer": Family("SegformerForSemanticSegmentation", "semantic"),
}


def load_hub_segmentation(
    source: str | Path,
    *,
    placement: Placement = Placement(),  # noqa: B008 (frozen)
    revision: str | None = None,
    unlabelled: Unlabelled = "background",
) -> TorchExpert:
    """The checkpoint `source`, a hub repository or a folder, as an expert for class maps.

    `unlabelled` says what pixels become that no query claims; SegFormer leaves none.
    Raises ValueError where its architecture is none of `FAMILIES` or its files do not fit, and
    what `open_checkpoint` raises.
    """
    checkpoint = open_checkpoint(source, revision)
    config = load_config(checkpoint)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(
            f"{source} is a checkpoint of {config.model_type}; segmentation experts are made of "
            f"{', '.join(FAMILIES)}"
        )
    columns, kind = class_columns(config, family.scores == "semantic")
    network = load_network(checkpoint, getattr(import_transformers(), family.network), config)
    view = load_view(checkpoint, config)
    prompt = _task_tokens(checkpoint, config) if config.model_type == "oneformer" else None
    if family.scores == "semantic":
        adapter = Adapter(view.prepare, _semantic_forward, _read_semantic)
    else:
        forward = _query_forward(family.scores, columns, prompt)
        read = _query_reader(view, family.scores, kind.ignore, unlabelled)
        adapter = Adapter(view.prepare, forward, read)
    spec = _spec(checkpoint, kind, view, family, prompt is not None)
    if family.scores != "semantic":
        thresholds = THRESHOLDS | {"unlabelled": unlabelled_id(unlabelled, kind.ignore)}
        spec = replace(spec, thresholds=thresholds)
    return TorchExpert(spec, network, adapter, placement)


def class_columns(config: Any, semantic: bool) -> tuple[list[int], ClassMap]:
    """Columns of the class logits that have a name, and the class map made of them.

    Checkpoints on COCO's raw ids call the ids without a class "N/A"; those columns are dropped.
    Other than for `semantic` logits, column i of the result is class i + 1, 0 is background.
    """
    names = {int(number): str(name) for number, name in config.id2label.items()}
    columns = [i for i in sorted(names) if semantic or names[i] not in UNNAMED]
    if not columns or columns[-1] >= config.num_labels or columns[0] < 0:
        raise ValueError(
            f"id2label of a {config.model_type} with {config.num_labels} classes names the ids "
            f"{columns[:1]} to {columns[-1:]}: it must name columns of the class logits"
        )
    classes = [names[i] for i in columns]
    if not semantic:
        classes.insert(0, "background")
    return columns, ClassMap(tuple(classes), ignore=255 if len(classes) <= 255 else 65535)


def _task_tokens(checkpoint: Checkpoint, config: Any) -> Tensor:
    """OneFormer's request, token ids (1, task_seq_len) with zeros for padding."""
    tokenizer = import_transformers().AutoTokenizer.from_pretrained(
        checkpoint.folder, trust_remote_code=False
    )
    tokens = tokenizer(
        [f"the task is {TASK}"],
        padding="max_length",
        max_length=config.task_seq_len,
        truncation=True,
        return_tensors="pt",
    )
    return tokens["input_ids"] * tokens["attention_mask"]


def _query_forward(
    scores: Scores, columns: list[int], prompt: Tensor | None
) -> Callable[[Any, Tensor], list[Outputs]]:
    def forward(network: Any, batch: Tensor) -> list[Outputs]:
        if prompt is None:
            found = network(pixel_values=batch)
        else:
            tasks = prompt.to(batch.device).expand(len(batch), -1)
            found = network(pixel_values=batch, task_inputs=tasks)
        if scores == "sigmoid":
            probabilities = found.logits.float().sigmoid()  # (B, Q, classes)
            masks = found.pred_masks
        else:
            probabilities = found.class_queries_logits.float().softmax(dim=-1)[..., :-1]
            masks = found.masks_queries_logits  # (B, Q, h, w)
        best, classes = probabilities[..., columns].max(dim=-1)  # (B, Q) each
        return [select_queries(*one) for one in zip(best, classes, masks, strict=True)]

    return forward


def select_queries(scores: Tensor, classes: Tensor, masks: Tensor) -> Outputs:
    """The queries of one image that reach the score threshold.

    scores (Q,), classes (Q,) from 0, mask logits (Q, h, w) -> `scores` (n,), `classes` (n,) from
    1, `masks` (n, h, w). `all_scores` shows NaN, which the threshold would hide.
    """
    kept = scores >= THRESHOLDS["score"]
    return {
        "scores": scores[kept],
        "classes": classes[kept] + 1,
        "masks": masks[kept],
        "all_scores": scores,
    }


def _query_reader(
    view: View, scores: Scores, ignore: int, unlabelled: Unlabelled = "background"
) -> Callable[[Outputs, tuple[int, int]], Prediction]:
    def read(outputs: Outputs, image_size: tuple[int, int]) -> Prediction:
        size = fitted_size(image_size, MAX_SIDE)
        logits = outputs["masks"].numpy()  # (n, h, w)
        area = view.box(image_size, (logits.shape[1], logits.shape[2]))
        masks = np.empty((len(logits), *size), dtype=np.float32)
        for mask, plane in zip(masks, logits, strict=True):
            sampled = sample_bilinear(*cut_out(plane, area), size)
            mask[:] = 1 / (1 + np.exp(-sampled.clip(-80, 80)))
        found = outputs["scores"].numpy()
        if scores == "softmax":
            found = found * mask_quality(masks)
        return predict_instances(
            masks,
            outputs["classes"].numpy(),
            found,
            size=size,
            score_threshold=THRESHOLDS["score"],
            mask_threshold=THRESHOLDS["mask"],
            unlabelled=unlabelled,
            ignore=ignore,
        )

    return read


def mask_quality(masks: np.ndarray) -> np.ndarray:
    """Mean probability over a mask's own pixels, (n, H, W) -> (n,); 0 for an empty mask."""
    inside = masks >= THRESHOLDS["mask"]
    total = np.where(inside, masks, 0).sum(axis=(1, 2))
    return total / np.maximum(inside.sum(axis=(1, 2)), 1)


def _semantic_forward(network: Any, batch: Tensor) -> list[Outputs]:
    """Class logits (classes, h, w) and the best class's probability (h, w) of each image."""
    logits = network(pixel_values=batch).logits.float()  # (B, classes, h, w)
    confidence = logits.softmax(dim=1).amax(dim=1)  # (B, h, w)
    return [{"logits": x, "confidence": c} for x, c in zip(logits, confidence, strict=True)]


def _read_semantic(outputs: Outputs, image_size: tuple[int, int]) -> Prediction:
    size = fitted_size(image_size, MAX_SIDE)
    logits = outputs["logits"].numpy()  # (classes, h, w)
    best = np.full(size, -np.inf, dtype=np.float32)
    label = np.zeros(size, dtype=np.uint8 if len(logits) <= 255 else np.uint16)
    for number, plane in enumerate(logits):  # one class at a time: 150 would fill 150 MB
        score = sample_bilinear(plane, WHOLE, size)
        better = score > best
        best[better] = score[better]
        label[better] = number
    return Prediction(label, confidence=outputs["confidence"].numpy())


def _spec(
    checkpoint: Checkpoint, kind: ClassMap, view: View, family: Family, prompted: bool
) -> ExpertSpec:
    names = frozenset(kind.classes)
    learnt_from = ("coco",) if names >= _COCO else ("ade20k",) if names >= _ADE20K else ()
    task: dict[str, object] = {"task": TASK} if prompted else {}
    return ExpertSpec(
        name=checkpoint.name,
        kind=kind,
        source=checkpoint.source,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        licence=licence_of(checkpoint),
        preprocessing={**view.description, "scores": family.scores, **task},
        learnt_from=benchmarks_of(checkpoint, learnt_from),
        confidence=SOFTMAX if family.scores == "semantic" else DETECTOR_SCORE,
    )


Size = tuple[int, int]
# Arguments that keep a processor from padding, by model type.
_NO_PADDING: dict[str, dict[str, object]] = {
    "mask2former": {"pad_size": None},
    "maskformer": {"pad_size": None},
    "eomt": {"do_pad": False},
    "rf_detr": {"do_pad": False},
}
# Input pixels per mask pixel of networks that pad their input to whole mask pixels.
_STRIDES = {"mask2former": 4, "maskformer": 4, "oneformer": 4}


@dataclass(frozen=True)
class View:
    """How images enter the network and which part of its mask planes they cover.

    prepare: (H, W, 3) uint8 -> (3, h, w) float32.
    box: (size of the image, size of a mask plane) -> the part of the plane that the image covers.
    description: JSON values for the manifest.
    """

    prepare: Callable[[np.ndarray], Tensor]
    box: Callable[[Size, Size], Box]
    description: dict[str, object]


def load_view(checkpoint: Checkpoint, config: Any) -> View:
    """The checkpoint's view; ValueError where its processor cuts windows or does not resize."""
    changes: dict[str, object] = {}
    if config.model_type == "oneformer":
        changes["class_info_file"] = None  # words for training texts, fetched from the network
    processor = load_processor(checkpoint, **changes)
    if getattr(processor, "do_split_image", False):
        raise ValueError(
            f"{checkpoint.source} cuts images into windows; use an instance or panoptic checkpoint"
        )
    rule = _size_rule(processor, checkpoint.source)
    canvas = _canvas(processor, config)
    stride = _STRIDES.get(config.model_type)
    options = _NO_PADDING.get(config.model_type, {})

    def prepare(image: np.ndarray) -> Tensor:
        height, width = rule((image.shape[0], image.shape[1]))
        pixels = processor(
            images=image,
            input_data_format="channels_last",
            size={"height": height, "width": width},
            return_tensors="pt",
            **options,
        )["pixel_values"][0]  # (3, h, w)
        return pixels if canvas is None else _pad(pixels, canvas, processor)

    def box(image: Size, plane: Size) -> Box:
        if canvas is None and stride is None:
            return WHOLE
        height, width = canvas or (plane[0] * (stride or 1), plane[1] * (stride or 1))
        inner = rule(image)
        return Box(right=min(1.0, inner[1] / width), bottom=min(1.0, inner[0] / height))

    return View(prepare, box, _describe(processor, canvas))


def _canvas(processor: Any, config: Any) -> Size | None:
    """The square that EoMT, whose positions are fixed, has its images padded to."""
    if config.model_type != "eomt" or not getattr(processor, "do_pad", False):
        return None
    side = config.image_size
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


def _size_rule(processor: Any, source: str) -> Callable[[Size], Size]:
    """(H, W) of an image -> (h, w) that it is resized to, before padding."""
    resized = import_transformers().image_transforms.get_size_with_aspect_ratio

    size = {name: value for name, value in dict(processor.size).items() if value}
    divisor = getattr(processor, "size_divisor", None) or 1
    fixed = "height" in size and "width" in size
    if not processor.do_resize or not (fixed or "shortest_edge" in size):
        raise ValueError(
            f"{source}: the processor must resize to a height and width or a shortest edge, "
            f"got do_resize={processor.do_resize}, size={size}"
        )

    def rule(image: Size) -> Size:
        if fixed:
            inner = (size["height"], size["width"])
        else:
            shortest, longest = size["shortest_edge"], size.get("longest_edge")
            inner = resized(image, shortest, longest)
        height, width = (-(-max(1, int(side)) // divisor) * divisor for side in inner)
        return height, width

    return rule


def _pad(pixels: Tensor, canvas: Size, processor: Any) -> Tensor:
    """(3, h, w) -> (3, *canvas), on the right and below with black as it looks normalised."""
    black = torch.zeros(3)
    if processor.do_normalize:
        black = -torch.tensor(processor.image_mean) / torch.tensor(processor.image_std)
    padded = black[:, None, None].repeat(1, *canvas)
    padded[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return padded


def _describe(processor: Any, canvas: Size | None) -> dict[str, object]:
    return {
        "processor": type(processor).__name__,
        "size": {name: value for name, value in dict(processor.size).items() if value},
        "size_divisor": getattr(processor, "size_divisor", None),
        "padded_to": None if canvas is None else list(canvas),
        "resample": int(processor.resample),
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
    }
