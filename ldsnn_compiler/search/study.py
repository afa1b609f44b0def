"""A global refiner: Optuna's tree-structured Parzen estimator over all choices at once, after the knapsack.

Local moves change one or two layers; this proposes whole schedules, from what all schedules evaluated so far tell about
which choices go together (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS; multivariate as
in Falkner et al. 2018, "BOHB", ICML). It minimises the cost; a schedule that is not good enough counts as dearer than
all that are, by its excess. It starts from schedules that the search has seen, and what it evaluates joins them, so the
result can only get better.

Schedules are proposed ``width`` at a time, and workers that share a storage share those. The same seed and history give
the same proposals: a killed search proposes them again and finds them in its journal.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ldsnn_compiler.search.journal import load_optuna
from ldsnn_compiler.search.refine import Explorer, Picks, Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

KNOWN = 64
"""Schedules that a study starts from, at most: half of them the cheapest that are good enough, half the nearest to it
that are not."""
DRAWS = 8
"""Proposals per schedule wanted, at most: in a small space most are known."""


def refine_globally(explorer: Explorer, trials: int, seed: int, width: int) -> None:
    """Evaluate ``trials`` schedules that a study proposes; fewer if it proposes nothing new any more.

    Raises:
        LdsnnError: Optuna is not installed.
    """
    if trials < 1:
        return
    study, choices = _study(seed), _choices(explorer)
    known = _known(explorer)
    dearest = max((p.cost for p in known), default=1.0)
    for point in known:
        study.enqueue_trial(dict(zip(choices, point.picks, strict=True)))
    left, draws = trials, DRAWS * trials + len(known)
    while left > 0 and draws > 0:
        asked = [study.ask(choices) for _ in range(width)]
        picks: list[Picks] = [tuple(trial.params[name] for name in choices) for trial in asked]
        new = [p for p in dict.fromkeys(picks) if p not in explorer.seen]
        for trial, point in zip(asked, explorer.look(picks, "global refinement"), strict=True):
            excess = explorer.criterion.excess(point.figures)
            study.tell(trial, dearest * (1 + excess) if excess > 0 else point.cost)
        left, draws = left - len(new), draws - width


def _study(seed: int) -> Study:
    optuna = load_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0)
    study: Study = optuna.create_study(sampler=sampler)
    return study


def _choices(explorer: Explorer) -> dict[str, BaseDistribution]:
    """A number for each group that has a choice or not; choices are in order of timesteps and levels."""
    optuna = load_optuna()
    groups = enumerate(explorer.space.groups)
    return {f"{g} {group.name}": optuna.distributions.IntDistribution(0, len(group.choices) - 1) for g, group in groups}


def _known(explorer: Explorer) -> list[Point]:
    """The seen schedules that tell most, in a fixed order."""
    good = [p for p in explorer.seen.values() if explorer.criterion.met(p.figures)]
    bad = [p for p in explorer.seen.values() if not explorer.criterion.met(p.figures)]
    good.sort(key=lambda p: (p.cost, p.picks))
    bad.sort(key=lambda p: (explorer.criterion.excess(p.figures), p.cost, p.picks))
    return good[: KNOWN // 2] + bad[: KNOWN // 2]
