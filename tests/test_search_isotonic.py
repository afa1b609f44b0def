"""Isotonic regression against its min-max formula, and what becomes of measured losses."""

from __future__ import annotations

from fractions import Fraction
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


def sensitivity(losses: list[list[float]], samples: int) -> list[list[float]]:
    """Losses to predict with, of groups whose choices are T = 8, 4, 2, and 4 in half the range or read once."""
    layers = [
        LayerSchedule(8, 1, "closed"), LayerSchedule(4, 1, "closed"), LayerSchedule(2, 1, "closed"),
        LayerSchedule(4, 1, "closed", range=0.5), LayerSchedule(4, 1, "closed", input_timesteps=1),
    ]  # fmt: skip
    groups = tuple(Group((str(g),), tuple(Choice((layer,)) for layer in layers)) for g in range(len(losses)))
    alone = tuple(tuple(Figures((0,) * samples, loss, {}) for loss in own) for own in losses)
    return Sensitivity((0,) * len(losses), alone).losses(Space(8, groups, (Fraction(1),) * len(losses)))


def test_losses_of_finer_choices_are_no_larger_and_other_kinds_stay_as_measured():
    assert sensitivity([[0.25, 0.5, 0.25, 0.125, 1.0]], 10) == [pytest.approx([0.125, 0.25, 0.25, 0.0, 0.875])]


def test_what_few_samples_tell_of_a_layer_is_drawn_towards_what_all_layers_tell():
    measured = [[0.0, 0.0, 0.25, 0.125, 0.25], [0.0, 0.125, 0.25, 0.125, 0.25]]
    few, many = sensitivity(measured, 16), sensitivity(measured, 10**6)
    assert many == [pytest.approx(own, abs=1e-4) for own in measured]
    first, second = few
    assert first[0] == second[0] == 0.0
    assert measured[0][1] < first[1] < second[1] < measured[1][1]
    assert sensitivity([[0.0] * 5, measured[1]], 16)[0] == [0.0] * 5
