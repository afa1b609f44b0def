"""Whether a network is as good as the original: the budget, paired intervals, and what the data can resolve.

``lost`` are the samples that only the original gets right, ``won`` those that only the other gets right; the drop is
``(lost - won) / N``. Without labels the original is right by definition, and the drop is the disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

from ldsnn_compiler.results import Z95, Interval
from ldsnn_compiler.search.evaluate import Figures, predictions_drop


@dataclass(frozen=True)
class Comparison:
    """A network against the original on the same samples."""

    samples: int
    lost: int
    won: int

    @property
    def drop(self) -> float:
        """Accuracy lost, in 0..1; negative where it rose."""
        return (self.lost - self.won) / self.samples

    @property
    def error(self) -> float:
        """Standard error of the drop."""
        return sqrt(self.lost + self.won) / self.samples

    @property
    def interval(self) -> Interval:
        """95 % interval of the drop: Wald's for paired proportions with half a sample added to each cell (Agresti and
        Min, Statistics in Medicine 24, 2005)."""
        n, lost, won = self.samples + 2, self.lost + 0.5, self.won + 0.5
        centre = (lost - won) / n
        half = Z95 * sqrt(max(0.0, (lost + won) - (lost - won) ** 2 / n)) / n
        return (centre - half, centre + half)

    def verdict(self, budget: float) -> str:
        """What the data say about the budget, in one sentence; plainly, if they are too few."""
        low, high = self.interval
        found = f"drop {100 * self.drop:+.2f} pp, 95 % interval {100 * low:+.2f} to {100 * high:+.2f} pp"
        if high <= budget:
            return f"within the budget of {100 * budget:g} pp: {found}"
        if low > budget:
            return f"exceeds the budget of {100 * budget:g} pp: {found}"
        needed = ceil((Z95 / budget) ** 2 * (self.lost + self.won + 1) / (self.samples + 2)) if budget > 0 else 0
        more = f"; about {needed:,} would" if needed > self.samples else ""
        return f"{self.samples} samples cannot resolve a budget of {100 * budget:g} pp: {found}{more}"

    def to_json(self, budget: float) -> dict[str, Any]:
        """Plain data for reports."""
        return {
            "samples": self.samples,
            "lost": self.lost,
            "won": self.won,
            "drop": self.drop,
            "drop_ci95": self.interval,
            "verdict": self.verdict(budget),
        }


@dataclass(frozen=True)
class Criterion:
    """When a network counts as good enough during the search: ``drop + caution * its standard error <= budget``.

    The more candidates are compared on the same samples, the luckier the best of them: ``caution`` pays for that.
    """

    budget: float
    caution: float
    reference: tuple[int, ...]
    labels: Sequence[int] | None

    @property
    def truth(self) -> Sequence[int]:
        """What counts as right: the labels, without them the reference."""
        return self.reference if self.labels is None else self.labels

    def compare(self, figures: Figures) -> Comparison:
        """A network's predictions against the reference's."""
        lost, won = predictions_drop(self.reference, figures.predictions, self.labels)
        return Comparison(len(self.reference), lost, won)

    def met(self, figures: Figures) -> bool:
        """Whether a network is good enough."""
        return self.excess(figures) <= 0

    def lost(self, figures: Figures) -> float:
        """What a network loses, of what the budget limits."""
        return self.compare(figures).drop

    def excess(self, figures: Figures) -> float:
        """By how much a network misses being good enough; 0 and below where it does not."""
        return self.lost(figures) + self.caution * self.compare(figures).error - self.budget

    def hopeless(self, figures: Figures) -> bool:
        """Whether a network is worse than the budget beyond doubt (two standard errors)."""
        found = self.compare(figures)
        return found.drop - 2 * found.error > self.budget


@dataclass(frozen=True)
class Divergence(Criterion):
    """The same by divergence from the original: ``loss <= budget``, a divergence in nats (``caution`` plays no part).

    To be as good as another network means to lose no more than it does. Samples that change sides are few and tell that
    badly; the divergence tells it on every sample.
    """

    def lost(self, figures: Figures) -> float:
        """Its divergence, in nats."""
        return figures.loss

    def excess(self, figures: Figures) -> float:
        """By how many nats it diverges too far."""
        return figures.loss - self.budget
