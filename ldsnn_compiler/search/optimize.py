"""``optimize``: from a network and data to a schedule per layer, the frontier it was chosen from, and honest baselines.

1. Uniform schedules are evaluated; the cheapest that is good enough is a baseline. The cheapest that is not hopeless is
   the base: near what will be found, and quick to run.
2. Every choice of every layer is evaluated alone, the others as in the base (sensitivity).
3. A multiple-choice knapsack over additive losses gives a predicted frontier.
4. Points of it are evaluated truly, and the best is improved by local moves.
5. If asked, the same is done for schedules that diverge from the original no more than the best uniform one does.
6. Chosen schedules and baselines are run on the report split, which nothing before has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldsnn_compiler.data import Data
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.evaluate import as_input
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.progress import Progress, silent
from ldsnn_compiler.results import Report, Row
from ldsnn_compiler.schedule import LayerSchedule, Schedule
from ldsnn_compiler.search import rows as tell
from ldsnn_compiler.search.cost import check_cost
from ldsnn_compiler.search.cost import cost as cost_named
from ldsnn_compiler.search.criterion import Criterion, Divergence
from ldsnn_compiler.search.engine import engine
from ldsnn_compiler.search.evaluate import Adjustment, Engine, Evaluator, Figures, check
from ldsnn_compiler.search.journal import Journal, open_journal
from ldsnn_compiler.search.knapsack import Selection
from ldsnn_compiler.search.latency import LatencyModel, checks
from ldsnn_compiler.search.model import Model
from ldsnn_compiler.search.options import Space, Uniform, space
from ldsnn_compiler.search.recalibrate import Recalibration
from ldsnn_compiler.search.refine import Explorer, Picks, Point
from ldsnn_compiler.search.sensitivity import measure
from ldsnn_compiler.search.session import Session
from ldsnn_compiler.search.study import refine_globally
from ldsnn_compiler.targets.boards import board

ORIGINAL, UNIFORM = "original, uniform T0, naive", "uniform T0, exactly optimised"
"""Names of the first two rows; ratios are against the second."""
RECALIBRATED = "recalibrated "
"""Begins the name of a row whose schedule was chosen, as that of the row named after it was, for what it does once
recalibrated: that one or a cheaper one."""
BEST_UNIFORM, BEST_UNIFORM_T, PER_LAYER, MATCHED = "best uniform", "best uniform T", "per layer", "matched"
"""Words of row names: ``best uniform, MODE``, one setting for all layers; ``best uniform T, MODE``, the same of
timesteps alone, where that is another; ``per layer, MODE``; and ``per layer, MODE, matched`` for the schedule that is
to be as good as the best uniform one."""


COUNTED = 1000
"""Samples, of more, on which the work of what runs compiled is counted: counting takes as long as running."""


@dataclass(frozen=True)
class Effort:
    """How much is evaluated. ``samples`` of the calibration split serve sensitivity, where the interpreter counts work
    on the first ``counted``; ``verified`` (all of it for None) serve the rest. There and on the report split work is
    counted on all samples, where candidates run compiled on the first :data:`COUNTED`. ``width`` schedules are compared
    at a time, for ``rounds`` along the frontier, and for at most ``repairs`` rounds near cheap ones that just miss;
    after either, if it brings something, at most ``moves`` rounds of local moves follow, ending after ``patience``
    rounds in vain. ``resolution`` is the knapsack's. ``memory`` bounds a batch's values and ``cache`` the remembered
    streams, in bytes. ``engine`` is ``interpreter``, ``compiled`` or ``auto``, see :mod:`ldsnn_compiler.search.engine`.
    ``recalibration`` samples serve recalibration, with which up to ``cheaper`` schedules are tried that were not good
    enough without."""

    samples: int = 256
    counted: int = 64
    verified: int | None = None
    width: int = 8
    rounds: int = 3
    moves: int = 12
    patience: int = 4
    repairs: int = 4
    resolution: float = 0.01
    memory: int = 1 << 28
    cache: int = 1 << 30
    engine: str = "auto"
    cheaper: int = 6
    recalibration: int = 256


@dataclass(frozen=True)
class Result:
    """What a search found. ``schedule`` is the one asked for (of ``both`` the binary one), ``schedules`` holds all by
    row name; ``front`` the schedules that none beats on the calibration split; ``rows`` the report split's figures,
    of which ``baselines`` are those that were not searched for; ``predictions`` its class numbers by row name;
    ``statement`` what the data resolve; ``networks`` the scheduled networks of recalibrated schedules that were
    searched for, by row name: what they are is more than a schedule."""

    schedule: Schedule
    schedules: Mapping[str, Schedule]
    front: Sequence[Mapping[str, Any]]
    rows: Sequence[Row]
    baselines: Mapping[str, Row]
    statement: str
    report: Report
    predictions: Mapping[str, tuple[int, ...]]
    evaluated: int = 0
    networks: Mapping[str, Graph] = field(default_factory=dict)


@dataclass(frozen=True)
class _Search:
    """What all parts of one search share."""

    graph: Graph
    budget: float
    cost: str
    caution: float
    effort: Effort
    seed: int
    journal: Journal
    progress: Progress
    hold: tuple[str, ...]
    uneven: bool
    engine: Engine
    refine: int
    recalibrate: Collection[str]
    match: bool
    agreement: bool
    latency: LatencyModel | None
    sessions: list[Session] = field(default_factory=list)

    def session(self, x: Tensor, counted: int | None = None, adjust: Adjustment | None = None) -> Session:
        effort = self.effort
        if self.engine.name == "compiled":
            counted = COUNTED
        evaluator = Evaluator(
            self.graph, x, memory=effort.memory, cache=effort.cache, counted=counted, engine=self.engine,
            adjust=adjust, latency=self.latency,
        )  # fmt: skip
        self.sessions.append(Session(evaluator, self.journal, self.progress))
        return self.sessions[-1]

    def verified(self, available: int) -> int:
        """Calibration samples that schedules are verified on."""
        return min(available, self.effort.verified or available)

    def criterion(self, session: Session, labels: Tensor | None) -> Criterion:
        predictions = session.reference().predictions
        truth = None if labels is None or self.agreement else labels.tolist()
        return Criterion(self.budget, self.caution, predictions, truth)


def optimize(
    graph: Graph,
    data: Data,
    budget: float = 0.005,
    *,
    spikes: str = "binary",
    cost: str = "synaptic",
    target: str = "native",
    storage: str | None = None,
    seed: int = 0,
    hold: Sequence[str] = (),
    uneven: bool = False,
    ranges: int = 0,
    reads: Sequence[int] = (),
    caution: float = 0.5,
    refine: int = 0,
    recalibrate: bool | Collection[str] = False,
    match: bool = False,
    agreement: bool = False,
    among: Callable[[str, LayerSchedule], bool] | None = None,
    effort: Effort | None = None,
    progress: Progress = silent,
) -> Result:
    """Choose timesteps, levels and method for every neuron layer.

    Args:
        graph: a traced network with one input.
        data: the search sees the calibration split only; figures are of the report split. Without labels the original
            network's predictions stand in for them.
        budget: accuracy that may be lost, in 0..1.
        spikes: ``binary``, ``graded``, or ``both`` (two searches).
        cost: ``synaptic``, ``neurons``, ``work`` (both, as shares of the original's, added) or ``latency`` (of kernels
            measured on this machine, if it is the target; else modelled). Of ``binary`` spikes each is an update, also
            where a synapse meets the average of several.
        target: board, named in the report.
        storage: Optuna storage (database URL or journal file) in which the search is resumed and shared.
        seed: of random starts; the same seed gives the same schedule.
        hold: paths of layers to leave as they are.
        uneven: also timesteps whose ratio to the original's is not whole, and ranges between halvings.
        ranges: how often the range of binary spikes may be halved, for layers that fire seldom.
        reads: timesteps on which binary layers may read their input, in place of their own.
        caution: standard errors of the drop that are added to it before it is held against the budget.
        refine: schedules that a global refiner may try after the knapsack and the local moves
            (:mod:`ldsnn_compiler.search.study`), for each of what is searched.
        recalibrate: add a row for each schedule after recalibration (:mod:`ldsnn_compiler.search.recalibrate`), the
            uniform ones too; of all modes of spikes or of those named.
        match: also search for the cheapest schedule that diverges from the original no more than the best uniform one.
        agreement: judge by agreement with the original network even where there are labels.
        among: which choices of a layer are on offer beside its own timesteps, given the mode of spikes and the choice;
            all if not given.
        effort: how much is evaluated.
        progress: called with phase, done, total and seconds left.

    Raises:
        LdsnnError: data that do not fit, unknown names, a budget outside 0..1, a storage that cannot be opened.
    """
    if not 0 <= budget <= 1:
        raise LdsnnError(f"a budget is a share of samples in 0..1, not {budget}")
    check_cost(cost)
    effort, modes = effort or Effort(), ("binary", "graded") if spikes == "both" else (spikes,)
    spaces = {mode: space(graph, mode, hold=hold, uneven=uneven, ranges=ranges, reads=reads) for mode in modes}
    if among is not None:
        spaces = {mode: _among(where, partial(among, mode)) for mode, where in spaces.items()}
    recalibrated = recalibrate if isinstance(recalibrate, Collection) else modes if recalibrate else ()
    for x, _ in (data.calibration, data.report):
        check(graph, x)
    runs, latency = engine(effort.engine, graph, len(data.report[0]), target), _latency(cost, target)
    search = _Search(
        graph, budget, cost, caution, effort, seed, open_journal(storage, f"{graph.name}"), progress,
        tuple(hold), uneven, runs, refine, recalibrated, match, agreement, latency,
    )  # fmt: skip
    found = {mode: _search(search, spaces[mode], data, mode == "binary") for mode in modes}
    return _result(search, found, data, cost, target, spikes)


def _among(where: Space, wanted: Callable[[LayerSchedule], bool]) -> Space:
    """A space without the choices that are not wanted; a layer always keeps its own."""
    left = (tuple(c for c in group.choices[1:] if all(map(wanted, c.layers))) for group in where.groups)
    groups = (replace(g, choices=(g.choices[0], *choices)) for g, choices in zip(where.groups, left, strict=True))
    return replace(where, groups=tuple(groups))


def _latency(cost: str, target: str) -> LatencyModel | None:
    """Measured latencies, where they are the cost and can be taken here."""
    machine = board(target)
    return LatencyModel(machine) if cost == "latency" and not machine.missing() else None


@dataclass(frozen=True)
class _Found:
    """One mode's outcome on the calibration split; ``matched`` is the cheapest that is as good as the best uniform."""

    space: Space
    best: Point
    uniforms: _Uniforms
    explorer: Explorer
    matched: Point | None = None


@dataclass(frozen=True)
class _Uniforms:
    """Uniform schedules: the cheapest that is not hopeless on few samples; on all samples the cheapest that is good
    enough, its name, the cheapest such that sets timesteps and levels only; and those that cost less than the best,
    dearest first."""

    base: Picks
    best: Point
    name: str
    plain: Point
    cheaper: tuple[Picks, ...]


def _search(search: _Search, where: Space, data: Data, each: bool) -> _Found:
    """One mode; ``each``: every spike is an update."""
    x, labels = data.calibration
    if (count := search.verified(len(x))) < len(x):
        some = _spread(len(x), count)
        x, labels = x[some], None if labels is None else labels[some]
    session = search.session(x)
    chosen = _spread(len(x), search.effort.samples)
    small = session if len(chosen) == len(x) else search.session(x[chosen], search.effort.counted)
    small_labels = labels if labels is None or small is session else labels[chosen]
    cost = cost_named(search.cost, session.reference().nodes, each)
    explorer = Explorer(session, where, search.criterion(session, labels), cost, {})
    identity = (0,) * len(where.groups)
    uniforms = _uniforms(search, explorer, small, small_labels, identity)
    if all(len(group.choices) == 1 for group in where.groups):
        return _Found(where, uniforms.best, uniforms, explorer, uniforms.best if search.match else None)
    model = Model(search.graph, where, measure(small, where, uniforms.base), cost, each)
    frontier = model.frontier(search.effort.resolution, search.seed)
    best, matched = _explored(search, explorer, model, frontier, uniforms.best), None
    if search.match:
        seen = explorer.criterion
        as_good = Divergence(uniforms.best.figures.loss, 0.0, seen.reference, seen.labels)
        matched = _explored(search, replace(explorer, criterion=as_good), model, frontier, uniforms.best)
    return _Found(where, best, uniforms, explorer, matched)


def _explored(
    search: _Search, explorer: Explorer, model: Model, frontier: Sequence[Selection], uniform: Point
) -> Point:
    """The cheapest schedule that is good enough to the explorer: along the predicted frontier, near cheaper ones that
    just miss, if asked for by global refinement, and each time near what was found."""
    effort, best = search.effort, None
    for step in (
        partial(explorer.follow, frontier, effort.width, effort.rounds),
        partial(explorer.repair, model, uniform, effort.width, effort.repairs),
        partial(refine_globally, explorer, search.refine, search.seed, effort.width),
    ):
        step()
        if (found := explorer.best or uniform) is not best:
            explorer.improve(model, found, effort.width, effort.moves, effort.patience)
            best = explorer.best or uniform
    return best or uniform


def _spread(count: int, wanted: int) -> Tensor:
    """Indices of ``wanted`` samples spread evenly over ``count``."""
    return torch.arange(count) if wanted >= count else torch.div(torch.arange(wanted) * count, wanted).long()


def _uniforms(search: _Search, explorer: Explorer, small: Session, labels: Tensor | None, identity: Picks) -> _Uniforms:
    """Evaluate them. Leaving everything as it is always qualifies."""
    where = explorer.space
    names: dict[Picks, Uniform | None] = {where.uniform(u): u for u in reversed(where.uniforms())}
    names.setdefault(identity, None)
    figures = dict(zip(names, small.evaluate([where.schedule(p) for p in names], "uniform schedules"), strict=True))
    costs = {picks: f.cost(explorer.cost) for picks, f in figures.items()}
    screen = search.criterion(small, labels)
    left = sorted((p for p in names if not screen.hopeless(figures[p])), key=lambda p: (costs[p], p))

    def first_good(among: Sequence[Picks]) -> Point:
        for picks in (*among, identity):
            (point,) = explorer.look([picks], "uniform schedules")
            if explorer.criterion.met(point.figures):
                return point
        return point

    best, plain = first_good(left), first_good([p for p in left if (setting := names[p]) and setting.is_plain])
    cheaper = (p for p in sorted(costs, key=lambda p: (-costs[p], p)) if costs[p] < costs[best.picks])
    return _Uniforms(left[0] if left else identity, best, str(names[best.picks] or "T0"), plain, tuple(cheaper))


def _result(search: _Search, found: Mapping[str, _Found], data: Data, cost: str, target: str, spikes: str) -> Result:
    x, labels = data.report
    session = search.session(x)
    criterion = search.criterion(session, labels)
    schedules = _named(found)
    searched = {name: schedule for name, schedule in schedules.items() if name.startswith(PER_LAYER)}
    figures = session.evaluate(list(schedules.values()), "report split")
    everything = {ORIGINAL: session.reference(), **dict(zip(schedules, figures, strict=True))}
    recalibrated = _recalibrated(search, found, data)
    everything |= {name: figures for name, (_, _, figures) in recalibrated.items()}
    of = schedules | {name: schedule for name, (schedule, _, _) in recalibrated.items()}
    classes = None if labels is None else labels.tolist()
    rows = [
        tell.row(name, f, of.get(name), everything[ORIGINAL], classes, search.graph) for name, f in everything.items()
    ]
    headline = f"{PER_LAYER}, {next(iter(found))}"
    details = {
        "budget": search.budget, "spikes": spikes, "cost": cost, "seed": search.seed, "caution": search.caution,
        "data": {"note": data.note, "calibration": len(data.calibration[0]), "report": len(x),
                 "verified": search.verified(len(data.calibration[0])),
                 "labels": criterion.labels is not None, "work_counted_on": session.evaluator.counted},
        "engine": search.engine.name,
        "headline": headline, "reference": UNIFORM,
        "uniform": {f"{BEST_UNIFORM}, {mode}": each.uniforms.name for mode, each in found.items()},
        "held": dict(next(iter(found.values())).space.held),
        "figures": {
            name: tell.beside_row(f, everything[UNIFORM], criterion, search.budget) for name, f in everything.items()
        },
        "against_best_uniform": {
            name: tell.against(everything[name], everything[_uniform_of(name)], criterion.truth)
            for name in everything if name.removeprefix(RECALIBRATED) in searched
        },
        "against_best_uniform_T": {
            name: tell.against(everything[name], everything[other], criterion.truth)
            for name in searched if (other := _uniform_of(name, BEST_UNIFORM_T)) in everything
        },
        "schedules": {name: tell.layers_json(schedule) for name, schedule in schedules.items()},
        "recalibrated_schedules": {name: tell.layers_json(of[name]) for name in recalibrated},
        "layers": {name: tell.per_layer(search.graph, f) for name, f in everything.items()},
        "latency": checks(search.latency, session.evaluator, schedules) if search.latency else {},
        "front": [
            point for mode, e in found.items()
            for point in tell.front(mode, e.explorer, e.best)
        ],
    }  # fmt: skip
    statement = criterion.compare(everything[headline]).verdict(search.budget)
    report = Report(search.graph.name, target, rows=rows, threads=torch.get_num_threads(), details=details)
    return Result(
        schedules[headline], searched, details["front"], rows,  # type: ignore[arg-type]
        {row.name: row for row in rows if row.name.removeprefix(RECALIBRATED) not in searched}, statement, report,
        {name: f.predictions for name, f in everything.items()}, sum(s.evaluated for s in search.sessions),
        {n: network for n, (_, network, _) in recalibrated.items() if n.removeprefix(RECALIBRATED) in searched},
    )  # fmt: skip


def _named(found: Mapping[str, _Found]) -> dict[str, Schedule]:
    """Baselines, and what was searched for, by row name."""
    space = next(iter(found.values())).space
    named = {UNIFORM: space.schedule((0,) * len(space.groups))}
    for mode, each in found.items():
        named[f"{BEST_UNIFORM}, {mode}"] = each.space.schedule(each.uniforms.best.picks)
        if each.uniforms.plain.picks != each.uniforms.best.picks:
            named[f"{BEST_UNIFORM_T}, {mode}"] = each.space.schedule(each.uniforms.plain.picks)
        named[f"{PER_LAYER}, {mode}"] = each.space.schedule(each.best.picks)
        if each.matched is not None:
            named[f"{PER_LAYER}, {mode}, {MATCHED}"] = each.space.schedule(each.matched.picks)
    return named


def _uniform_of(name: str, uniform: str = BEST_UNIFORM) -> str:
    """The row of the best uniform schedule that a row is held against: of its mode, recalibrated if it is."""
    return name.removesuffix(f", {MATCHED}").replace(PER_LAYER, uniform)


def _recalibrated(
    search: _Search, found: Mapping[str, _Found], data: Data
) -> dict[str, tuple[Schedule, Graph, Figures]]:
    """Schedules chosen for what they do once recalibrated, if asked for, with the networks that they then are and the
    figures on the report split."""
    if not search.recalibrate:
        return {}
    x = data.calibration[0]
    samples = as_input(search.graph.inputs[0], x[_spread(len(x), search.effort.recalibration)])
    adjust, space = Recalibration(search.graph, samples), next(iter(found.values())).space
    named = {UNIFORM: space.schedule((0,) * len(space.groups))}
    for mode, each in found.items():
        if mode not in search.recalibrate:
            continue
        session = search.session(each.explorer.session.evaluator.x, adjust=adjust)
        explorer, count = replace(each.explorer, session=session, seen={}), search.effort.cheaper
        next_cheaper = [p.picks for p in each.explorer.front() if p.cost < each.best.cost][:count]
        named[f"{BEST_UNIFORM}, {mode}"] = _once_recalibrated(
            explorer, each.uniforms.best, each.uniforms.cheaper[:count]
        )
        named[f"{PER_LAYER}, {mode}"] = _once_recalibrated(replace(explorer, seen={}), each.best, next_cheaper)
    session = search.session(data.report[0], adjust=adjust)
    figures = session.evaluate(list(named.values()), "recalibrated, report split")
    return {
        f"{RECALIBRATED}{name}": (schedule, session.evaluator.prepare(schedule), each)
        for (name, schedule), each in zip(named.items(), figures, strict=True)
    }


def _once_recalibrated(explorer: Explorer, plain: Point, cheaper: Sequence[Picks]) -> Schedule:
    """The cheapest of these that is good enough once recalibrated; the one that was good enough before if none is."""
    explorer.look([plain.picks, *cheaper], "recalibrated")
    found = explorer.best
    return explorer.space.schedule(plain.picks if found is None else found.picks)
