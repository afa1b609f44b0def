"""Isotonic regression against its min-max formula, and what it does to measured losses."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldsnn_compiler.schedule import LayerSchedule
from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.isotonic import isotonic
from ldsnn_compiler.search.options import Choice, Group, Space
from ldsnn_compiler.search.sensitivity import Sensitivity

numbers = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=6)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[float], set[tuple[int, int]]]:
    """Values, and pairs of a partial order, not closed."""
    values = draw(numbers)
    pairs = [(i, j) for j in range(len(values)) for i in range(j)]
    return values, draw(st.sets(st.sampled_from(pairs))) if pairs else set()


def brute(values: list[float], order: set[tuple[int, int]]) -> list[float]:
    """The greatest, over upper sets, of the least mean, over lower sets, of what both hold (Robertson et al. 1988)."""
    everything = [set(c) for n in range(len(values) + 1) for c in combinations(range(len(values)), n)]
    lower = [s for s in everything if all(i in s for i, j in order if j in s)]
    upper = [s for s in everything if all(j in s for i, j in order if i in s)]

    def mean(members: set[int]) -> float:
        return sum(values[i] for i in members) / len(members)

    return [
        max(min(mean(u & low) for low in lower if x in low) for u in upper if x in u)
        for x in range(len(values))
    ]  # fmt: skip


@given(orders())
def test_it_is_the_nearest_that_keeps_the_order(problem: tuple[list[float], set[tuple[int, int]]]):
    values, order = problem
    assert isotonic(values, order) == pytest.approx(brute(values, order), abs=1e-9)


@given(numbers)
def test_values_in_order_stay(values: list[float]):
    chain = {(i, i + 1) for i in range(len(values) - 1)}
    assert isotonic(sorted(values), chain) == sorted(values)
    assert isotonic(values, set()) == values


def test_losses_of_finer_choices_are_no_larger_and_other_kinds_stay_as_measured():
    layers = [
        LayerSchedule(8, 1, "closed"), LayerSchedule(4, 1, "closed"), LayerSchedule(2, 1, "closed"),
        LayerSchedule(4, 1, "closed", range=0.5), LayerSchedule(4, 1, "closed", input_timesteps=1),
    ]  # fmt: skip
    group = Group(("layer",), tuple(Choice((layer,)) for layer in layers))
    measured = [Figures((), loss, {}) for loss in (0.25, 0.5, 0.25, 0.125, 1.0)]
    profile = Sensitivity((0,), (tuple(measured),))
    (losses,) = profile.losses(Space(8, (group,), (1,)))  # type: ignore[arg-type]
    assert losses == [0.125, 0.25, 0.25, 0.0, 0.875]
