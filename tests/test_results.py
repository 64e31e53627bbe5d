from __future__ import annotations

import pytest

from cliptex.results import Result


def row(**protocol) -> Result:
    return Result(
        model="m",
        task="t",
        dataset="d",
        metric="x",
        value=1,
        better="higher",
        n=1,
        protocol=protocol,
    )


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ({}, ""),
        ({"lr": 0.1, "crop": [45, 471, 41, 601], "recipe": ""}, ""),
        ({"recipe": "paper", "name": "eigen", "resolution": 512}, "paper recipe, eigen, 512 px"),
        ({"templates": "openai", "crop": "squash", "resolution": 224}, "openai prompts, 224 px"),
        ({"templates": ["a {}", "the {}"], "crop": "center"}, "2 own prompts, center crop"),
    ],
)
def test_variant__tells_tests_apart(protocol, expected):
    assert row(**protocol).variant == expected
