"""How tasks, models, data sets and metrics are called in tables and figures."""

from __future__ import annotations

from dataclasses import dataclass

from cliptex.results import Result


@dataclass(frozen=True, kw_only=True)
class MetricName:
    """Label of a metric, the unit that follows its values and the decimals worth printing."""

    label: str
    unit: str = ""
    decimals: int = 1


METRICS: dict[str, MetricName] = {
    "miou": MetricName(label="mIoU", unit="%"),
    "miou_things": MetricName(label="mIoU, things", unit="%"),
    "absrel": MetricName(label="AbsRel", decimals=3),
    "mean": MetricName(label="mean angle", unit="°"),
    "median": MetricName(label="median angle", unit="°"),
    "rmse": MetricName(label="RMSE", unit="°"),
    "a11": MetricName(label="within 11.25°", unit="%"),
    "a22": MetricName(label="within 22.5°", unit="%"),
    "a30": MetricName(label="within 30°", unit="%"),
    "top1": MetricName(label="top-1", unit="%"),
    "top5": MetricName(label="top-5", unit="%"),
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
    "classification": "Classification",
    "zeroshot": "Zero-shot classification",
    "retrieval": "Image-text retrieval",
}
DENSE_TASKS = ("segmentation", "depth", "normals")

MODELS: dict[str, str] = {
    "clip": "CLIP",
    "init": "init",
    "clip-ft": "CLIP-FT",
    "cliptex": "CLIPTeX",
    "cliptex-perfect": "CLIPTeX, perfect labels",
    "cliptex-placebo": "CLIPTeX, placebo labels",
}

EXPERT_PREFIX = "expert-"


def metric_name(metric: str) -> MetricName:
    """The name of `metric`; an unknown one is shown as it is."""
    return METRICS.get(metric, MetricName(label=metric, decimals=2))


def model_name(model: str) -> str:
    """The name of `model` as the paper writes it; an unknown one is shown as it is."""
    return MODELS.get(model, model)


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

    @classmethod
    def of(cls, row: Result) -> Measure:
        """The measure that `row` belongs to."""
        return cls(row.task, row.dataset, row.probe, row.metric, row.better)

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
        return f"{self.task.replace('zeroshot', 'zero-shot')} {self.name.label}"


def measures_in_order(rows: list[Result]) -> list[Measure]:
    """The distinct measures of `rows`: tasks in the paper's order, then as they first appear."""
    found = list(dict.fromkeys(Measure.of(row) for row in rows))
    known = list(TASKS)
    rank = {task: known.index(task) if task in known else len(known) for task in known}
    return sorted(found, key=lambda measure: rank.get(measure.task, len(known)))


def number(value: float, name: MetricName, *, signed: bool = False) -> str:
    """`value` with the decimals of its metric and a true minus sign."""
    text = f"{value:+.{name.decimals}f}" if signed else f"{value:.{name.decimals}f}"
    return text.replace("-", "−")
