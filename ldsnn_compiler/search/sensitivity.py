"""What each choice does on its own: loss and work with one group changed and all others as in a base schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldsnn_compiler.search.evaluate import Figures
from ldsnn_compiler.search.options import Space
from ldsnn_compiler.search.session import Session


@dataclass(frozen=True)
class Sensitivity:
    """``alone[g][o]``: figures with option o in group g, the others as in ``base``."""

    base: tuple[int, ...]
    alone: tuple[tuple[Figures, ...], ...]

    def losses(self) -> list[list[float]]:
        """Loss of every option above the group's least, so from 0; what adds up over groups."""
        each = [[figures.loss for figures in options] for options in self.alone]
        return [[loss - min(options) for loss in options] for options in each]


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
