"""`cliptex probe` and `cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Dense = Literal["voc", "ade20k", "nyu-depth", "nyu-normals", "folder"]


def probe(
    checkpoint: str,
    dataset: Dense,
    root: Path,
    out: Path,
    model: str = "cliptex",
    train_split: str = "train",
    test_split: str = "test",
    resolution: int = 512,
    seed: int = 0,
    leak: bool = False,
) -> None:
    """Train a linear probe on a frozen image encoder and append its scores to a results file.

    Args:
        checkpoint: folder of a saved CLIP, `playroom`, `open_clip:NAME/TAG` or `timm:NAME/TAG`.
        dataset: layout of the data set (see cliptex.datasets); folder is classification.
        root: where the data set lies.
        out: results file (JSON lines) to append to.
        model: how the model is called in the results.
        train_split: split that the probe learns from (its learning rate on a held-out part).
        test_split: split that is scored, once.
        resolution: side in pixels to which every picture is resized.
        seed: of the probe.
        leak: mark the rows: an expert learnt from this data set.
    """
    from cliptex.models.clip import load_clip
    from cliptex.models.encoder import FrozenEncoder
    from cliptex.probes.classification import run_classification_probe
    from cliptex.probes.config import ProbeConfig
    from cliptex.probes.dense import run_dense_probe
    from cliptex.results import append_results

    read = _readers()[dataset]
    train, test = read(root, train_split), read(root, test_split)
    outcome = (run_classification_probe if dataset == "folder" else run_dense_probe)(
        FrozenEncoder(load_clip(checkpoint).image),
        train,
        None,
        test,
        ProbeConfig(resolution=resolution, seed=seed),
        model=model,
        checkpoint=checkpoint_sha(checkpoint),
        leak=leak,
    )
    append_results(out, outcome.results)
    _show(outcome.results, out)


def zeroshot(
    checkpoint: str,
    dataset: Literal["folder", "karpathy"],
    root: Path,
    out: Path,
    model: str = "cliptex",
    images: Path | None = None,
    split: str = "test",
    resolution: int = 224,
    leak: bool = False,
) -> None:
    """Zero-shot classification (image folder) or retrieval (Karpathy JSON), without training.

    Args:
        checkpoint: folder of a saved CLIP, `playroom`, `open_clip:NAME/TAG` or `timm:NAME/TAG`.
        dataset: folder (one folder per class, its name is the prompt) or karpathy.
        root: the folder that holds the splits, or the Karpathy JSON.
        out: results file (JSON lines) to append to.
        model: how the model is called in the results.
        images: folder of the images of a Karpathy JSON; by default the folder it lies in.
        split: split that is scored.
        resolution: side in pixels to which every picture is resized.
        leak: mark the rows: an expert learnt from this data set.
    """
    from cliptex.datasets.folders import ImageFolder
    from cliptex.datasets.karpathy import Karpathy
    from cliptex.models.clip import load_clip
    from cliptex.results import append_results
    from cliptex.zeroshot.classify import run_zeroshot
    from cliptex.zeroshot.encode import ZeroShotConfig
    from cliptex.zeroshot.retrieve import run_retrieval

    names = {"model": model, "checkpoint": checkpoint_sha(checkpoint), "leak": leak}
    config = ZeroShotConfig(resolution=resolution)
    clip = load_clip(checkpoint)
    if dataset == "folder":
        outcome = run_zeroshot(clip, ImageFolder(root, split), config, **names)
    else:
        pairs = Karpathy(root, root.parent if images is None else images, split)
        outcome = run_retrieval(clip, pairs, config, **names)
    append_results(out, outcome.results)
    _show(outcome.results, out)


def checkpoint_sha(checkpoint: str) -> str:
    """sha256 of the weights file of a saved model, "" for a model that is named."""
    from cliptex.files import sha256_file

    weights = Path(checkpoint) / "model.safetensors"
    return sha256_file(weights) if weights.is_file() else ""


def _readers() -> dict[Dense, Callable[[Path, str], Any]]:
    from cliptex.datasets.ade20k import Ade20k
    from cliptex.datasets.folders import ImageFolder
    from cliptex.datasets.normals import NormalsFolder
    from cliptex.datasets.nyu import NyuDepth
    from cliptex.datasets.voc import VocSegmentation

    return {
        "voc": VocSegmentation,
        "ade20k": Ade20k,
        "nyu-depth": NyuDepth,
        "nyu-normals": NormalsFolder,
        "folder": ImageFolder,
    }


def _show(rows: list[Any], out: Path) -> None:
    for row in rows:
        print(f"{row.model}  {row.task} {row.metric} on {row.dataset}: {row.value:.4g} (n {row.n})")
    print(out)
