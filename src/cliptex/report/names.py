"""How tasks, models, data sets and metrics are called in tables and figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cliptex.results import CONTROLS, Result


@dataclass(frozen=True, kw_only=True)
class MetricName:
    """Label of a metric, the unit that follows its values and the decimals worth printing."""

    label: str
    unit: str = ""
    decimals: int = 1


AP_NAMES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "aps": "AP small",
    "apm": "AP medium",
    "apl": "AP large",
}

METRICS: dict[str, MetricName] = {
    "miou": MetricName(label="mIoU", unit="%"),
    "miou_things": MetricName(label="mIoU, things", unit="%"),
    "miou_foreground": MetricName(label="mIoU without background", unit="%"),
    "absrel": MetricName(label="AbsRel", decimals=3),
    "depth_rmse": MetricName(label="RMSE", unit="m", decimals=3),
    "depth_log10": MetricName(label="log10", decimals=3),
    "depth_silog": MetricName(label="SILog"),
    "depth_d1": MetricName(label="δ < 1.25", unit="%"),
    "depth_d2": MetricName(label="δ < 1.25²", unit="%"),
    "depth_d3": MetricName(label="δ < 1.25³", unit="%"),
    "mean": MetricName(label="mean angle", unit="°"),
    "median": MetricName(label="median angle", unit="°"),
    "rmse": MetricName(label="RMSE", unit="°"),
    "a5": MetricName(label="within 5°", unit="%"),
    "a7": MetricName(label="within 7.5°", unit="%"),
    "a11": MetricName(label="within 11.25°", unit="%"),
    "a22": MetricName(label="within 22.5°", unit="%"),
    "a30": MetricName(label="within 30°", unit="%"),
    "top1": MetricName(label="top-1", unit="%"),
    "top5": MetricName(label="top-5", unit="%"),
    "mean_per_class": MetricName(label="mean per class", unit="%"),
    **{
        f"{statistic}_{form}": MetricName(label=f"{form} {label}", unit="%")
        for form in ("box", "mask")
        for statistic, label in AP_NAMES.items()
    },
    "image_r1": MetricName(label="image R@1", unit="%"),
    "image_r5": MetricName(label="image R@5", unit="%"),
    "image_r10": MetricName(label="image R@10", unit="%"),
    "text_r1": MetricName(label="text R@1", unit="%"),
    "text_r5": MetricName(label="text R@5", unit="%"),
    "text_r10": MetricName(label="text R@10", unit="%"),
}

TASKS: dict[str, str] = {
    "segmentation": "Semantic segmentation",
    "depth": "Depth",
    "normals": "Surface normals",
    "detection": "Detection and instance segmentation",
    "zeroshot-segmentation": "Zero-shot segmentation from text",
    "classification": "Classification",
    "zeroshot": "Zero-shot classification",
    "retrieval": "Image-text retrieval",
}
DENSE_TASKS = ("segmentation", "depth", "normals", "detection", "zeroshot-segmentation")

PRIMARY: dict[str, tuple[str, ...]] = {
    "segmentation": ("miou",),
    "depth": ("absrel",),
    "normals": ("a30",),
    "detection": ("ap_box",),
    "zeroshot-segmentation": ("miou",),
    "classification": ("top1",),
    "zeroshot": ("top1",),
    "retrieval": ("image_r1", "text_r1"),
}
"""The metric by which a test of each task counts; of retrieval, one for each direction."""

PROBES: dict[str, str] = {
    "deeplabv3": "DeepLabv3",
    "pspnet": "PSPNet",
    "mask_rcnn": "Mask R-CNN",
    "ssd": "SSD",
}

MODELS: dict[str, str] = {
    "clip": "CLIP",
    "init": "init",
    "clip-ft": "CLIP-FT",
    "cliptex": "CLIPTeX",
    "cliptex-perfect": "CLIPTeX, perfect labels",
    "cliptex-placebo": "CLIPTeX, placebo labels",
    "random-init": "random weights",
    "pixels": "pixels and places",
    "mean prediction": "mean answer",
}

EXPERT_PREFIX = "expert-"


def metric_name(metric: str) -> MetricName:
    """The name of `metric`; an unknown one is shown as it is."""
    return METRICS.get(metric, MetricName(label=metric, decimals=2))


def model_name(model: str) -> str:
    """The name of `model` as the paper writes it; an unknown one is shown as it is."""
    name, number = _numbered(model)
    return MODELS[name] + number if name in MODELS else model


def is_control(model: str) -> bool:
    """Whether `model` has learnt nothing: one of `CONTROLS`, or a further one, `pixels (2)`."""
    return _numbered(model)[0] in CONTROLS


def control_kind(model: str) -> str:
    """`pixels` of `pixels (2)`; other names as they are."""
    kind, _ = _numbered(model)
    return kind if kind in CONTROLS else model


def _numbered(model: str) -> tuple[str, str]:
    """`pixels (2)` -> `pixels`, ` (2)`."""
    found = re.fullmatch(r"(.*?)( \(\d+\))?", model, re.DOTALL)
    assert found
    return found[1], found[2] or ""


def probe_name(probe: str) -> str:
    """The name of `probe`; an unknown one is shown as it is."""
    return PROBES.get(probe, probe)


def task_name(task: str) -> str:
    """The heading of `task`; an unknown one is shown as it is."""
    return TASKS.get(task, task)


@dataclass(frozen=True, order=True)
class Measure:
    """What one column of a table holds: rows are comparable within a measure only."""

    task: str
    dataset: str
    probe: str | None
    metric: str
    better: str
    n: int
    variant: str = ""

    @classmethod
    def of(cls, row: Result) -> Measure:
        """The measure that `row` belongs to; `n` counts its test images."""
        return cls(row.task, row.dataset, row.probe, row.metric, row.better, row.n, row.variant)

    @property
    def test(self) -> str:
        """How it was measured, beside the data set: `linear probe, paper recipe, 512 px`."""
        return ", ".join(part for part in (self.probe_text, self.variant) if part)

    @property
    def probe_text(self) -> str:
        """`linear probe`, "" where there is none."""
        return f"{probe_name(self.probe)} probe" if self.probe else ""

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is."""
        return 1 if self.better == "higher" else -1

    @property
    def name(self) -> MetricName:
        """How the metric is called and printed."""
        return metric_name(self.metric)

    @property
    def short(self) -> str:
        """One line for charts and sentences: `depth AbsRel`."""
        task = self.task.replace("zeroshot", "zero-shot").replace("-segmentation", " segmentation")
        task = "linear classification" if task == "classification" else task
        return f"{task} {self.name.label}"


def measures_in_order(rows: list[Result]) -> list[Measure]:
    """The distinct measures of `rows`: tasks in the paper's order, then as they first appear."""
    found = list(dict.fromkeys(Measure.of(row) for row in rows))
    known = list(TASKS)
    rank = {task: known.index(task) if task in known else len(known) for task in known}
    return sorted(found, key=lambda measure: rank.get(measure.task, len(known)))


def told_apart(measures: Sequence[Measure], *, always: bool = False) -> list[str]:
    """What must follow `short` to tell `measures` apart: data set, probe, variant, n, or "".

    always: name the data set also where it is plain.
    """
    details = []
    for measure in measures:
        same = [m for m in measures if m.short == measure.short]
        here = [m for m in same if m.dataset == measure.dataset]
        alike = [m for m in here if m.probe == measure.probe]
        several = always or len({m.dataset for m in same}) > 1
        parts = [measure.dataset if several else ""]
        parts += [probe_name(measure.probe or "") if len({m.probe for m in here}) > 1 else ""]
        parts += _own(measure.variant, [m.variant for m in alike])
        sizes = {m.n for m in alike if m.variant == measure.variant}
        parts += [f"n = {measure.n}" if len(sizes) > 1 else ""]
        details.append(", ".join(part for part in parts if part))
    return details


def _own(variant: str, others: Sequence[str]) -> list[str]:
    """The parts of `variant` that not all `others` have."""
    return [p for p in variant.split(", ") if not all(p in other.split(", ") for other in others)]


def number(value: float, name: MetricName, *, signed: bool = False) -> str:
    """`value` with the decimals of its metric and a true minus sign."""
    text = f"{value:+.{name.decimals}f}" if signed else f"{value:.{name.decimals}f}"
    return text.replace("-", "−")
