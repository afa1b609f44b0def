"""A few networks of the conformance suite for each library; ``python -m conformance`` runs a thousand, of all."""

from __future__ import annotations

from math import ceil

import pytest
from conformance.compare import hold
from conformance.library import library
from conformance.table import Result, faults, markdown

NETWORKS = 50
PARTS = 4
"""Tests for each library, so that they can run side by side."""
LIBRARIES = ("spikingjelly", "snntorch", "norse", "sinabs")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in LIBRARIES])
def test_networks_conform(name: str, part: int) -> None:
    found = library(name)
    # a library of many more variants gives one in two, or fewer, of them: the suite by script draws from all
    each, apart = ceil(NETWORKS / len(found.variants)), ceil(len(found.variants) / NETWORKS)
    chosen = list(found.variants)[part * apart :: PARTS * apart]
    # with ordinary weights one variant is compiled as well: the suite by script compiles all
    outcomes = [hold(found, v, each, range(32, 65), each, floats=v == chosen[0]) for v in chosen]
    assert not [fault for outcome in outcomes for fault in faults(outcome)]
    assert all(outcome.networks == each for outcome in outcomes)
    shown = markdown([Result(name, found.version, tuple(outcomes))], "a test")
    assert shown.count("| identical |") == len(outcomes)
