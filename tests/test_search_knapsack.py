"""The frontier against brute force, exact and thinned."""

from __future__ import annotations

from itertools import pairwise, product
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldsnn_compiler.search.knapsack import frontier

losses = st.one_of(st.just(0.0), st.integers(1, 50).map(float), st.floats(1e-6, 10.0))
problems = st.lists(st.lists(st.tuples(losses, st.integers(0, 50).map(float)), min_size=1, max_size=5), max_size=5)
Problem = list[list[tuple[float, float]]]


def brute(groups: Problem) -> list[tuple[float, float]]:
    """Every undominated (loss, cost), least loss first."""
    sums = sorted({(sum(o[0] for o in picks), sum(o[1] for o in picks)) for picks in product(*groups)})
    kept: list[tuple[float, float]] = []
    for each in sums:
        if not kept or each[1] < kept[-1][1]:
            kept.append(each)
    return kept


@given(st.lists(st.lists(st.tuples(*[st.integers(0, 50).map(float)] * 2), min_size=1, max_size=5), max_size=5))
def test_exact_on_whole_numbers(groups: Problem):
    assert [(s.loss, s.cost) for s in frontier(groups)] == brute(groups)


@given(problems)
def test_picks_give_their_sums(groups: Problem):
    for each in frontier(groups, 0.1):
        chosen = [options[pick] for options, pick in zip(groups, each.picks, strict=True)]
        assert sum(loss for loss, _ in chosen) == pytest.approx(each.loss)
        assert sum(cost for _, cost in chosen) == pytest.approx(each.cost)


@given(problems, st.sampled_from((0.01, 0.1, 0.5)))
def test_thinning_loses_no_more_than_it_says(groups: Problem, resolution: float):
    found = frontier(groups, resolution)
    for loss, cost in brute(groups):
        assert any(s.cost <= cost + 1e-9 and s.loss <= loss * exp(resolution) + 1e-9 for s in found)


def test_large_problems_stay_small_when_thinned():
    groups = [[(0.001 * 1.7**j * (i + 1), 100.0 / (j + 1) + i) for j in range(12)] for i in range(20)]
    found = frontier(groups, 0.05)
    assert 10 < len(found) < 20_000
    assert all(a.loss < b.loss and a.cost > b.cost for a, b in pairwise(found))


def test_bad_problems_are_refused():
    with pytest.raises(ValueError, match="needs options"):
        frontier([[]])
    with pytest.raises(ValueError, match="losses from 0"):
        frontier([[(-1.0, 0.0)]])
