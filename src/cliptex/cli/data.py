"""`cliptex shards` and `cliptex playroom export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cliptex.cli.arguments import AnyPathArg


def import_(
    source: Positional[Literal["folder", "karpathy", "coco", "img2dataset"]],
    path: Positional[AnyPathArg],
    /,
    out: AnyPathArg,
    images: AnyPathArg | None = None,
    split: str = "train",
) -> None:
    """Write image-text shards from another layout.

    Args:
        source: layout: captions CSV, TSV or JSONL; Karpathy JSON; COCO captions; img2dataset.
        path: the captions file, or the folder of img2dataset.
        out: folder of the shards.
        images: folder of the images; by default the folder of the captions file.
        split: which split of a Karpathy JSON.
    """
    from cliptex.shards import importers

    pictures = path.parent if images is None else images
    report = {
        "folder": lambda: importers.import_folder(path, pictures, out),
        "karpathy": lambda: importers.import_karpathy(path, pictures, out, split=split),
        "coco": lambda: importers.import_coco(path, pictures, out),
        "img2dataset": lambda: importers.import_img2dataset(path, out),
    }[source]()
    print(report)
    print(out)


def check(
    shards: Positional[AnyPathArg], /, decode: bool = True, caption_key: str | None = None
) -> None:
    """Count samples and problems of image-text shards; fails where there are any.

    Args:
        shards: folder of tars, or one tar.
        decode: decode every image, too.
        caption_key: field of every KEY.json that holds the captions, instead of KEY.txt.
    """
    from cliptex.shards.check import check as check_shards
    from cliptex.shards.dataset import ImageTextShards

    found = ImageTextShards(shards, on_damaged="keep", caption_key=caption_key)
    report = check_shards(found, decode=decode)
    print(report)
    if not report.ok:
        raise ValueError(f"{shards}: {len(report.problems)} problems, listed above")


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
