"""Shares of inputs that may be left out."""

import pytest

from cliptex import console


def test_check_failures_allows_the_stated_share():
    console.check_failures(5, 100, allowed=0.05, what="images", remedy="look")
    with pytest.raises(
        console.TooManyFailures,
        match=r"6 of 100 images were left out \(6.0 %\), more than the 5 % .*; look",
    ):
        console.check_failures(6, 100, allowed=0.05, what="images", remedy="look")


def test_check_failures_refuses_a_percentage():
    with pytest.raises(ValueError, match="max_failures 5: not a share from 0 to 1"):
        console.check_failures(0, 100, allowed=5, what="images", remedy="look")


def test_did_you_mean():
    known = ["--data", "--dataset", "--out"]
    assert console.did_you_mean("--dataste", known) == " (did you mean --dataset?)"
    assert console.did_you_mean("--oot", known) == " (did you mean --out?)"
    assert console.did_you_mean("--x", known) == ""
