"""What may be compared: rows of one test, and whether they came about alike."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cliptex.report.names import Measure, is_control
from cliptex.results import CONTROL_OF, TEST_SPLIT, TIED, Result

CLASS_IOU, CLASS_SUPPORT = "class_iou", "class_support"
"""Keys of a result's protocol: {class: IoU in %, or None} and {class: [pixels, images]} of the
ground truth."""

OF_THE_MODEL = frozenset(
    {
        *("encoder_sha256", "encoder_stride", "encoder_resolution", "map", "cells"),
        *("classes_alike", *TIED),  # to its tokenizer, or by its scores
        *("lr", "lr_scores", "lr_at_grid_edge", "storage_error", "diverged_at_step"),
        *(CLASS_IOU, CLASS_SUPPORT, CONTROL_OF),
    }
)
"""Keys of a protocol that follow from the model, or are results: they differ in a fair comparison.
Of rates, what was tried must agree, not what was chosen."""

SHORT = 24
"""Characters up to which a differing value is quoted."""


def with_splits(rows: Sequence[Result]) -> list[Result]:
    """`rows`, where those that do not name their test split have that of their like.

    Rows of older versions and of Python name none. Where all others with the same measure and
    number of images name one split, it is taken to be theirs; of several, none can be.
    """
    bare = [without_split(row) for row in rows]
    named: dict[Measure, set[object]] = {}
    for row, plain in zip(rows, bare, strict=True):
        if TEST_SPLIT in row.protocol:
            named.setdefault(Measure.of(plain), set()).add(row.protocol[TEST_SPLIT])
    found = []
    for row, plain in zip(rows, bare, strict=True):
        splits = named.get(Measure.of(plain), set())
        if TEST_SPLIT not in row.protocol and len(splits) == 1:
            protocol = {**row.protocol, TEST_SPLIT: next(iter(splits))}
            row = row.model_copy(update={"protocol": protocol})
        found.append(row)
    return found


def controls_apart(rows: Sequence[Result]) -> list[Result]:
    """`rows`, where what differs among rows of one control has a name of its own.

    Every model may be probed with its controls, which are not the same where it has another
    architecture or other settings: the second `random-init` becomes `random-init (2)`.
    """
    seen: dict[tuple[Measure, str, int], list[dict[str, object]]] = {}
    found = []
    for row in rows:
        if is_control(row.model):
            of_test = seen.setdefault((Measure.of(row), row.model, row.seed), [])
            content = row.model_dump(exclude={"time"})
            content["protocol"].pop(CONTROL_OF, None)  # one control may serve several models
            if content not in of_test:
                of_test.append(content)
            place = of_test.index(content)
            if place:
                row = row.model_copy(update={"model": f"{row.model} ({place + 1})"})
        found.append(row)
    return found


def control_owner(row: Result) -> str:
    """The model whose control `row` is; "" where it names none, as rows of older versions."""
    owner = row.protocol.get(CONTROL_OF)
    return str(owner.get("model", "")) if isinstance(owner, dict) else ""


def without_split(row: Result) -> Result:
    """`row` as if it did not name its test split."""
    kept = {key: value for key, value in row.protocol.items() if key != TEST_SPLIT}
    return row if len(kept) == len(row.protocol) else row.model_copy(update={"protocol": kept})


def unlike(rows: Sequence[Result]) -> str:
    """In what `rows` of one measure are not like for like: `epochs 12 / 300, train split a / b`.

    Whatever their protocols say differently, but for `OF_THE_MODEL`; "" where nothing does. A key
    that only some rows have says nothing, since older rows have fewer; but an encoder or head whose
    precision is not named ran in fp32. Values come in the rows' order; long ones are left out.
    """
    values: dict[str, dict[str, None]] = {}  # key -> distinct values, as text
    for row in rows:
        protocol = dict(row.protocol)
        if "lr" in protocol:
            protocol.setdefault("lr_grid", [protocol["lr"]])  # of one rate nothing is chosen
        if "encoder_sha256" in protocol:
            protocol = {"precision": "fp32", "head_precision": "fp32", **protocol}
        for key in protocol.keys() - OF_THE_MODEL:
            value = protocol[key]
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            values.setdefault(key, {})[text] = None
    return ", ".join(_said(key, list(of)) for key, of in sorted(values.items()) if len(of) > 1)


def _said(key: str, values: Sequence[str]) -> str:
    quoted = " / ".join(values)
    label = key.replace("_", " ")
    return label if any(len(value) > SHORT for value in values) else f"{label} {quoted}"
