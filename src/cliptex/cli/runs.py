"""`cliptex report`, `demo`, `photos`, `playroom export|zoo|reproduce`: whole runs, their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cliptex.cli.help import verb


@verb(
    "cliptex report runs/demo",
    "cliptex report runs/seed0 runs/seed1 --baseline clip-ft --ours cliptex --out compare.html",
)
def report(
    runs: Positional[tuple[Path, ...]],
    /,
    out: Path | None = None,
    title: str = "CLIPTeX",
    baseline: str | None = None,
    ours: str | None = None,
    start: str | None = None,
) -> None:
    """Write one self-contained HTML page from the results of one run, or of several seeds.

    Args:
        runs: run folders, each with a results.jsonl, or results files.
        out: the page, which ends in .html (or .htm) and is replaced; by default report.html in
            the first run, or beside the first file.
        title: heading of the page.
        baseline: model that the others are compared with; by default clip-ft.
        ours: model whose gain is shown; by default cliptex.
        start: model that both were trained from; by default clip.
    """
    from cliptex.report import write_report

    if not runs:
        raise ValueError("name at least one run folder")
    first = runs[0].parent if runs[0].is_file() else runs[0]
    page = first / "report.html" if out is None else out
    _check_page(page, runs)
    write_report(list(runs), page, title=title, baseline=baseline, ours=ours, start=start)
    print(page)


def _check_page(page: Path, runs: tuple[Path, ...]) -> None:
    """ValueError where writing `page` would replace what is no page, above all results."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {page}: the report is one HTML file; name one that ends in .html")
    if page.resolve() in {run.resolve() for run in runs}:
        raise ValueError(f"{page}: results are read from it; name another page with --out")


@verb(
    "cliptex demo --preset quick",
    "cliptex demo --seed 0 1 2 --controls --jobs 2 --out runs/demo3",
)
def demo(
    out: Path = Path("runs/demo"),
    preset: Literal["quick", "full"] = "full",
    controls: Annotated[bool, arg(help="train with perfect and with placebo labels, too")] = False,
    seed: tuple[int, ...] = (0,),
    jobs: int = 1,
) -> None:
    """The whole path in the playroom: label, train, probe, report. Goes on where it was stopped.

    Args:
        out: folder of the run.
        preset: quick is a smoke run of a minute or two.
        seed: of trainings and probes; several (`--seed 0 1 2`) give intervals.
        jobs: stages that run side by side, each with its share of the cores.
    """
    from cliptex.pipeline.demo import run_demo

    if not seed:
        raise ValueError("--seed needs at least one number")
    run_demo(out, preset, controls, seed, jobs)
    _show_run(out)


@verb(
    "cliptex photos --data-root data",
    "cliptex photos --data-root data --seed 1 --out runs/photos1",
)
def photos(data_root: Path, out: Path = Path("runs/photos"), seed: int = 0) -> None:
    """The whole path on real photographs. Goes on where it was stopped.

    Args:
        data_root: folder with flickr8k-mini, VOCdevkit, nyu-mini, imagenette-mini and experts.
        out: folder of the run.
        seed: of both trainings and of the probes.
    """
    from cliptex.pipeline.photos import run_photos

    run_photos(data_root, out, seed)
    _show_run(out)


@verb(
    "cliptex playroom export web --out web --count 500",
    "cliptex playroom export home --out home --count 80",
)
def export(
    domain: Positional[Literal["web", "home"]],
    /,
    out: Path,
    count: int | None = None,
    size: int = 128,
    seed: int = 0,
    workers: Annotated[int, arg(help="processes")] = 2,
) -> None:
    """Render the playroom: image-text shards (web), or downstream sets in real layouts (home).

    Args:
        domain: web, or home for VOC, ADE20K, COCO, NYU, class folders and captions.
        out: folder to write to; a stopped export goes on.
        count: number of image-text pairs (4,000 by default), or of rooms to learn from (1,000),
            with the other splits in proportion.
        size: height and width in pixels.
        seed: seed of the world.
    """
    from cliptex.playroom.export import HomeSizes, export_home, export_web

    if domain == "web":
        export_web(
            out, count=4000 if count is None else count, size=size, seed=seed, workers=workers
        )
    else:
        sizes = HomeSizes() if count is None else HomeSizes.scaled(count)
        export_home(out, sizes=sizes, size=size, seed=seed, workers=workers)
    print(out)


@verb(
    "cliptex playroom zoo --preset short",
    "cliptex playroom zoo --out runs/zoo",
)
def zoo(out: Path = Path("runs/zoo"), preset: Literal["short", "full"] = "full") -> None:
    """Rebuild every model that the package ships, from nothing.

    Args:
        out: folder of the run; what is shipped lies in its folder `pack`.
        preset: short is a smoke run of the same path.
    """
    from cliptex.pipeline.zoo import build_zoo

    build_zoo(out, preset)
    print(out / "pack")


@verb(
    "cliptex playroom reproduce --seed 0",
    "cliptex playroom reproduce --seed 0 1 2 --controls --jobs 2",
)
def reproduce(
    out: Path = Path("runs/reproduce"),
    seed: tuple[int, ...] = (0, 1, 2),
    controls: bool = False,
    jobs: int = 1,
) -> None:
    """CLIPTeX against CLIP-FT in the playroom, by every probe. Goes on where it was stopped.

    Linear, DeepLabv3 and PSPNet probes, Mask R-CNN, SSD, linear classification and zero-shot.

    Args:
        out: folder of the run.
        seed: of trainings and probes; several give intervals.
        controls: also probe random weights and pixels, and answer with the mean (first seed).
        jobs: stages that run side by side, each with its share of the cores.
    """
    from cliptex.pipeline.reproduce import run_reproduce

    if not seed:
        raise ValueError("--seed needs at least one number")
    run_reproduce(out, seed, controls=controls, jobs=jobs)
    _show_run(out)


def _show_run(out: Path) -> None:
    print(out / "results.jsonl")
    print(out / "report.html")
