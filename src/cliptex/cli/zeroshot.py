"""`cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg

from cliptex.cli.arguments import Prompted
from cliptex.cli.help import verb
from cliptex.cli.probe import learnt_from
from cliptex.cli.rows import check_text, check_writable, checkpoint_of, record
from cliptex.datasets.catalogue import LAYOUTS

if TYPE_CHECKING:
    from cliptex.zeroshot import ZeroShotOutcome


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions:
    """What `cliptex zeroshot` understands.

    Args:
        model: model to score, named as for `cliptex probe`.
        dataset: layout of the data set (see docs/datasets.md): of classes, of captions (retrieval),
            or of class maps (segmentation by text on patch features).
        root: where the data set lies; the JSON of karpathy; a folder or hub id of hub-*.
        out: results file (JSON lines) to append to.
        name: how the model is called in the results; by default as `model`.
        images: folder of the images of a Karpathy JSON; by default one beside the JSON.
        split: split that is scored; by default the layout's usual one, as in docs/datasets.md.
        resolution: side in pixels of the square that the model sees, rounded to a multiple of its
            stride; by default the side that it was trained at.
        precision: precision of both towers.
        crop: squash resizes the whole picture to a square; center takes the central square of its
            short side, as CLIP and the authors' library do (not for segmentation).
        templates: openai80 (CLIP's 80 for ImageNet), simple (their best seven), or a file with one
            template a line, `{}` for the name.
        classes: file of class names in the order of the classes, one a line, synonyms after `;`;
            by default the names of the data set.
        leak: mark the rows as a leak: an expert learnt from this data set. Automatic where the
            model's folder says so (provenance.json).
        device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.
    """

    model: str
    dataset: Prompted
    root: Path
    out: Path
    name: str | None = None
    images: Path | None = None
    split: str | None = None
    resolution: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    crop: Literal["squash", "center"] = "squash"
    templates: str = "openai80"
    classes: Path | None = None
    leak: bool = False
    device: str = "auto"

    def chosen_split(self) -> str:
        """The split that is scored: given, or the layout's usual one."""
        from cliptex.datasets.catalogue import usual_splits

        LAYOUTS[self.dataset].require_root(self.root)
        return self.split or usual_splits(self.dataset, self.root)[1]


def zeroshot_outcome(options: ZeroShotOptions) -> ZeroShotOutcome:
    """Read the data set, load the model, and score it; what cannot be read is said first."""
    if options.resolution is not None and options.resolution < 1:
        raise ValueError(f"--resolution {options.resolution}: a side in pixels, of at least 1")
    split = options.chosen_split()  # before the imports below, which take seconds
    from cliptex.datasets.catalogue import open_dataset
    from cliptex.models.clip import load_clip
    from cliptex.models.device import pick_device
    from cliptex.zeroshot import run_retrieval, run_zeroshot, run_zeroshot_segmentation
    from cliptex.zeroshot.encode import ZeroShotConfig
    from cliptex.zeroshot.prompts import read_templates

    templates = read_templates(options.templates)
    check_text(options.model)
    data: Any = open_dataset(options.dataset, options.root, split, options.images)
    asked = _asked_names(options, data)
    clip = load_clip(options.model).to(pick_device(options.device))
    side = clip.image.image_size if options.resolution is None else options.resolution
    config = ZeroShotConfig(
        resolution=side,
        crop=options.crop,
        templates=templates,
        precision=options.precision,
    )
    names: dict[str, Any] = {
        "model": options.name or options.model,
        "checkpoint": checkpoint_of(options.model, clip),
        "leak": options.leak or learnt_from(options.model, options.dataset, data),
    }
    task = LAYOUTS[options.dataset].task
    if task == "retrieval":
        return run_retrieval(clip, data, config, **names)
    run = run_zeroshot if task == "classification" else run_zeroshot_segmentation
    return run(clip, data, config, classes=asked, **names)


def _asked_names(options: ZeroShotOptions, data: Any) -> list[tuple[str, ...]] | None:
    """The names of --classes; ValueError where they are not as many as the classes of `data`."""
    from cliptex.zeroshot.prompts import read_names

    if options.classes is None:
        return None
    task = LAYOUTS[options.dataset].task
    if task == "retrieval":
        raise ValueError("--classes: retrieval has captions, not classes")
    names = read_names(options.classes)
    of_data = data.classes if task == "classification" else data.kind.classes
    if len(names) != len(of_data):
        raise ValueError(
            f"--classes {options.classes}: it names {len(names)}, but {data.name} has "
            f"{len(of_data)} classes: one line for each, in their order"
        )
    return names


@verb(
    "cliptex zeroshot --model playroom --dataset folder"
    " --root runs/demo/home/classes --split test --out results.jsonl",
    "cliptex zeroshot --model open_clip:ViT-B-16/openai --dataset folder"
    " --root imagenet --split val --out results.jsonl",
    first="model dataset root out name split templates classes resolution device",
)
def zeroshot(options: Annotated[ZeroShotOptions, OmitArgPrefixes, arg(name="zero-shot")]) -> None:
    """Zero-shot classification, retrieval, or segmentation from text, without training."""
    check_writable(options.out)
    outcome = zeroshot_outcome(options)
    record(options.out, outcome, {"test_split": options.chosen_split()})
    print(options.out)
