"""`cliptex shards import` and `check`."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional

from cliptex.cli.arguments import AnyPathArg
from cliptex.cli.help import verb
from cliptex.console import MAX_FAILURES, check_failures

TABLE = ("image_column", "caption_column", "separator", "quoting", "skip_bad_rows")


@verb(
    "cliptex shards import folder captions.csv --images images --out shards",
    "cliptex shards import coco captions_val2017.json --images val2017 --out shards",
    first="out images split image_column caption_column skip_bad_rows caption_key max_failures",
)
def import_(
    source: Positional[Literal["folder", "karpathy", "coco", "img2dataset"]],
    path: Positional[AnyPathArg],
    /,
    out: AnyPathArg,
    images: AnyPathArg | None = None,
    split: str = "train",
    image_column: str = "",
    caption_column: str = "",
    separator: str = "",
    quoting: Literal["guess", "standard", "backslash", "none"] = "guess",
    skip_bad_rows: bool = False,
    caption_key: str | None = None,
    max_failures: float = MAX_FAILURES,
) -> None:
    """Write image-text shards from another layout.

    Args:
        source: what is imported: folder is images with a table of captions (CSV, TSV, JSON lines
            or a JSON list), karpathy and coco are JSON files, img2dataset is its output folder.
        path: captions file, or output folder of img2dataset.
        out: folder to write the shards to.
        images: folder of the images; by default the folder of the captions file.
        split: split of a Karpathy JSON.
        image_column: table column or JSON key of the images' names; by default a usual name.
        caption_column: table column or JSON key of the captions; by default a usual name.
        separator: separator of table columns: one character, or comma, tab, semicolon; by default
            the one that fits the header.
        quoting: how a table quotes fields: standard doubles a quote in a quoted field, backslash
            escapes it, none treats quotes as text. Guessed where only one reading is possible.
        skip_bad_rows: leave out and count rows of a table that do not fit, instead of stopping.
        caption_key: field of every KEY.json of img2dataset that holds the captions, instead of
            KEY.txt.
        max_failures: share of the inputs, 0 to 1, that may be left out; above it the command ends
            with status 3.
    """
    from cliptex.shards import importers
    from cliptex.shards.tables import TableForm

    check_failures(0, 1, allowed=max_failures, what="inputs", remedy="")  # the share itself
    form = {
        "image_column": image_column,
        "caption_column": caption_column,
        "separator": separator,
        "quoting": quoting,
    }
    rest = {"images": images, "split": split, "caption_key": caption_key}
    _refuse_foreign(source, skip_bad_rows=skip_bad_rows, **form, **rest)
    pictures = path.parent if images is None else images
    report = {
        "folder": lambda: importers.import_folder(
            path, pictures, out, form=TableForm(**form), skip_bad_rows=skip_bad_rows
        ),
        "karpathy": lambda: importers.import_karpathy(path, pictures, out, split=split),
        "coco": lambda: importers.import_coco(path, pictures, out),
        "img2dataset": lambda: importers.import_img2dataset(path, out, caption_key=caption_key),
    }[source]()
    print(report)
    print(out)
    report.check(max_failures)


def _refuse_foreign(source: str, **options: object) -> None:
    """ValueError names an option that was given and is of another layout."""
    unset = (None, "", False, "guess", "train")
    taken = {
        "folder": ("images", *TABLE),
        "karpathy": ("images", "split"),
        "coco": ("images",),
        "img2dataset": ("caption_key",),
    }
    for name, value in options.items():
        if value not in unset and name not in taken[source]:
            given = "" if value is True else f" {value}"
            layouts = [layout for layout, names in taken.items() if name in names]
            raise ValueError(
                f"`{name}`{given}: applies to the source {' and '.join(layouts)}, not to {source}"
            )


@verb(
    "cliptex shards check runs/demo/web/shards",
    "cliptex shards check shards --caption-key caption --no-decode",
)
def check(
    shards: Positional[AnyPathArg], /, decode: bool = True, caption_key: str | None = None
) -> None:
    """Count samples and problems of image-text shards; fails where there are problems.

    Args:
        shards: folder of tars, or one tar.
        decode: also decode every image.
        caption_key: field of every KEY.json that holds the captions, instead of KEY.txt.
    """
    from cliptex.shards.check import check as check_shards
    from cliptex.shards.dataset import ImageTextShards

    found = ImageTextShards(shards, on_damaged="keep", caption_key=caption_key)
    report = check_shards(found, decode=decode)
    print(report)
    if not report.samples:
        raise ValueError(
            f"{shards}: no sample: an image and its caption are members KEY.jpg and KEY.txt"
        )
    if not report.ok:
        raise ValueError(f"{shards}: {len(report.problems)} problems, listed above")
