"""Which codec stores an expert's labels, and what each codec of a kind costs on real ones."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliptex.labels.kinds import Difference, Kind

DECODINGS = 3  # of each label; the fastest counts


@dataclass(frozen=True, kw_only=True)
class CodecCost:
    """One codec, measured on labels at their stored size, on one thread.

    bytes_per_label counts the PNG and its JSON; `error` is decode(encode(x)) against x: the mean
    over labels, and the worst pixel of all. Times are means over labels.
    """

    codec: str
    bytes_per_label: float
    error: Difference
    encode_ms: float
    decode_ms: float


def choose_codecs(kinds: Sequence[Kind], names: Sequence[str]) -> list[str | None]:
    """For each kind the one of `names` that stores it, None where its default does.

    Raises ValueError for a name that stores none of the kinds, or two that store one.
    """
    fitting = [[name for name in names if name in kind.codecs] for kind in kinds]
    for kind, found in zip(kinds, fitting, strict=True):
        if len(found) > 1:
            raise ValueError(f"codecs {' and '.join(found)} both store {kind.name}: give one")
    useless = [name for name in names if not any(name in found for found in fitting)]
    if useless:
        known = {kind.name: ", ".join(kind.codecs) for kind in kinds}
        listed = "; ".join(f"{kind} by {codecs}" for kind, codecs in known.items())
        raise ValueError(f"codec {useless[0]!r} stores no label of these experts: {listed}")
    return [found[0] if found else None for found in fitting]


def measure_codecs(kind: Kind, labels: Sequence[np.ndarray]) -> tuple[CodecCost, ...]:
    """What every codec of `kind` costs on `labels`, at least one, in the kind's form."""
    return tuple(_measure(kind, name, labels) for name in kind.codecs)


def _measure(kind: Kind, name: str, labels: Sequence[np.ndarray]) -> CodecCost:
    sizes: list[int] = []
    errors: list[Difference] = []
    encoding: list[float] = []
    decoding: list[float] = []
    for label in labels:
        start = time.perf_counter()
        encoded = kind.encode(label, name)
        encoding.append(time.perf_counter() - start)
        times: list[float] = []
        for _ in range(DECODINGS):
            start = time.perf_counter()
            back = kind.decode(encoded.png, encoded.meta, name)
            times.append(time.perf_counter() - start)
        decoding.append(min(times))
        meta = b"" if encoded.meta is None else json.dumps(encoded.meta).encode()
        sizes.append(len(encoded.png) + len(meta))
        errors.append(kind.difference(back, label))
    return CodecCost(
        codec=name,
        bytes_per_label=float(np.mean(sizes)),
        error=Difference(
            validity=min(error.validity for error in errors),
            mean=float(np.mean([error.mean for error in errors])),
            worst=max(error.worst for error in errors),
        ),
        encode_ms=1e3 * float(np.mean(encoding)),
        decode_ms=1e3 * float(np.mean(decoding)),
    )
