"""What each choice does on its own: loss and work with one group changed and all others as in a base schedule.

Losses measured on few samples are noisy: single spikes flip, and predictions with them. A knapsack would pick those
that came out too low, one in every layer. So they are not predicted with as measured, but as two things known
beforehand let them be:

1. More timesteps or levels, all else equal, do not lose more: the nearest losses of which that is true are taken.
2. Layers resemble each other. What a setting loses in the mean over all layers, h, it is expected to lose in each,
   times a scale of the layer: ``e = s h``, ``s = sum(measured) / sum(h)``. A loss of e nats a sample is seen on few
   samples or many: the measured one weighs as much as ``n e`` nats of n samples do against :data:`EXPECTED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.isotonic import isotonic
from ldsnn_compiler.search.options import Choice, Space
from ldsnn_compiler.search.session import Session

EXPECTED = 4.0
"""Nats, over all samples, from which on a measured loss weighs more than an expected one: a prediction that flips
brings about one, and a layer may be half as harmful as expected, or half as harmful again."""


@dataclass(frozen=True)
class Sensitivity:
    """``alone[g][o]``: figures with option o in group g, the others as in ``base``."""

    base: tuple[int, ...]
    alone: tuple[tuple[Figures, ...], ...]

    def losses(self, space: Space) -> list[list[float]]:
        """Loss of every option of every group of ``space`` above the group's least, so from 0; what adds up."""
        measured = [
            _above_least(isotonic([figures.loss for figures in options], _finer_first(group.choices)))
            for options, group in zip(self.alone, space.groups, strict=True)
        ]
        common = _means(measured, space)
        return [
            _above_least(_pooled(own, [common[str(c)] for c in group.choices], len(options[0].predictions)))
            for own, group, options in zip(measured, space.groups, self.alone, strict=True)
        ]


def _above_least(values: Sequence[float]) -> list[float]:
    return [value - min(values) for value in values]


def _means(losses: Sequence[Sequence[float]], space: Space) -> dict[str, float]:
    """The mean loss of every setting, over the groups that have it."""
    found: dict[str, list[float]] = {}
    for own, group in zip(losses, space.groups, strict=True):
        for loss, choice in zip(own, group.choices, strict=True):
            found.setdefault(str(choice), []).append(loss)
    return {setting: sum(each) / len(each) for setting, each in found.items()}


def _pooled(measured: Sequence[float], common: Sequence[float], samples: int) -> list[float]:
    """Losses of one group between what was measured and what is expected of settings this harmful elsewhere."""
    scale = sum(measured) / sum(common) if sum(common) > 0 else 0.0
    expected = [scale * each for each in common]
    trust = [samples * e / (samples * e + EXPECTED) for e in expected]
    return [e + t * (m - e) for m, e, t in zip(measured, expected, trust, strict=True)]


def _finer_first(choices: Sequence[Choice]) -> list[tuple[int, int]]:
    """Pairs of which the first does not lose more."""
    numbered = list(enumerate(choices))
    return [(i, j) for i, a in numbered for j, b in numbered if i != j and a.is_finer(b)]


def measure(session: Session, space: Space, base: Sequence[int]) -> Sensitivity:
    """Evaluate every option of every group on its own."""
    base = tuple(base)
    trials = [
        base[:g] + (option,) + base[g + 1 :]
        for g, group in enumerate(space.groups)
        for option in range(len(group.choices))
    ]
    schedules = [space.schedule(picks) for picks in trials]
    figures = iter(session.evaluate(schedules, "sensitivity", base=space.schedule(base)))
    return Sensitivity(base, tuple(tuple(next(figures) for _ in group.choices) for group in space.groups))
