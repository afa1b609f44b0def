"""Multiple-choice knapsack for a whole frontier: one option per group, losses and costs add up.

Groups are joined one by one, keeping only sums that no other beats in both loss and cost: exact dynamic programming
over the Pareto set. Where that grows too large, sums are thinned on a geometric grid of losses whose ratio is
``1 + resolution / groups``, the cheapest of each cell staying (Warburton, Operations Research 35, 1987). Then for
every selection there is one in the result that costs no more and loses at most ``exp(resolution)`` times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Selection:
    """An option per group, and their sums."""

    loss: float
    cost: float
    picks: tuple[int, ...]


def frontier(groups: Sequence[Sequence[tuple[float, float]]], resolution: float = 0.0) -> list[Selection]:
    """Selections that none beats in both loss and cost, least loss first.

    Args:
        groups: for each group its options as (loss, cost); losses are not negative.
        resolution: 0 is exact; see the module's text.

    Raises:
        ValueError: a group without options, or a negative loss.
    """
    if any(not options or min(loss for loss, _ in options) < 0 for options in groups):
        raise ValueError("every group needs options, and losses from 0")
    positive = [loss for options in groups for loss, _ in options if loss > 0]
    step = resolution / max(1, len(groups))
    losses, costs = np.zeros(1), np.zeros(1)
    came: list[tuple[Indices, Indices]] = []
    for options in groups:
        own = np.array(options, dtype=np.float64)
        all_losses = (losses[:, None] + own[:, 0]).ravel()
        all_costs = (costs[:, None] + own[:, 1]).ravel()
        kept = _undominated(all_losses, all_costs)
        if step > 0 and positive:
            kept = kept[_thinned(all_losses[kept], min(positive), step)]
        losses, costs = all_losses[kept], all_costs[kept]
        came.append(np.unravel_index(kept, (len(all_losses) // len(own), len(own))))  # type: ignore[arg-type]
    return [Selection(float(losses[i]), float(costs[i]), _picks(came, i)) for i in range(len(losses))]


def _undominated(losses: Array, costs: Array) -> Indices:
    """Indices of the Pareto set, losses rising and costs falling strictly."""
    order: Indices = np.lexsort((costs, losses))
    best = np.minimum.accumulate(costs[order])
    first = np.concatenate([[True], best[1:] < best[:-1]])
    kept: Indices = order[first]
    return kept


def _thinned(losses: Array, smallest: float, step: float) -> Indices:
    """The last, so the cheapest, of each cell of the geometric grid; a loss of 0 is a cell of its own."""
    safe = np.maximum(losses, smallest)
    cell = np.where(losses <= 0, -1, np.floor(np.log(safe / smallest) / np.log1p(step)))
    return np.flatnonzero(np.concatenate([cell[1:] != cell[:-1], [True]]))


def _picks(came: list[tuple[Indices, Indices]], index: int) -> tuple[int, ...]:
    """The options behind one sum, read backwards."""
    picks: list[int] = []
    for parents, options in reversed(came):
        picks.append(int(options[index]))
        index = int(parents[index])
    return tuple(reversed(picks))
