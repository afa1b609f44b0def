"""What each choice does on its own: loss and work with one group changed and all others as in a base schedule.

Losses measured on few samples are noisy: single spikes flip, and predictions with them. A knapsack would pick those
that came out too low, one in every layer. That more timesteps or levels, all else equal, do not lose more is known
beforehand; so the losses that are predicted with are the nearest ones of which that is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.isotonic import isotonic
from ldsnn_compiler.search.options import Choice, Space
from ldsnn_compiler.search.session import Session


@dataclass(frozen=True)
class Sensitivity:
    """``alone[g][o]``: figures with option o in group g, the others as in ``base``."""

    base: tuple[int, ...]
    alone: tuple[tuple[Figures, ...], ...]

    def losses(self, space: Space) -> list[list[float]]:
        """Loss of every option of every group of ``space`` above the group's least, so from 0; what adds up."""
        each = [
            isotonic([figures.loss for figures in options], _finer_first(group.choices))
            for options, group in zip(self.alone, space.groups, strict=True)
        ]
        return [[loss - min(options) for loss in options] for options in each]


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
