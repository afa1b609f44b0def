"""``optimize``: from a network and data to a schedule per layer, the frontier it was chosen from, and honest baselines.

1. Uniform schedules are evaluated; the cheapest that is good enough is the base, and a baseline.
2. Every choice of every layer is evaluated alone, the others as in the base (sensitivity).
3. A multiple-choice knapsack over additive losses gives a predicted frontier.
4. Points of it are evaluated truly, and the best is improved by local moves.
5. Chosen schedule and baselines are run on the report split, which nothing before has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ldsnn_compiler.data import Data
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.results import Report, Row, wilson
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.search.cost import Cost, totals
from ldsnn_compiler.search.cost import cost as cost_named
from ldsnn_compiler.search.criterion import Criterion
from ldsnn_compiler.search.engine import engine
from ldsnn_compiler.search.evaluate import Adjustment, Engine, Evaluator, Figures, as_input
from ldsnn_compiler.search.journal import Journal, open_journal
from ldsnn_compiler.search.latency import LatencyModel
from ldsnn_compiler.search.model import Model
from ldsnn_compiler.search.options import Space, space
from ldsnn_compiler.search.recalibrate import Recalibration
from ldsnn_compiler.search.refine import Explorer, Picks, Point
from ldsnn_compiler.search.sensitivity import measure
from ldsnn_compiler.search.session import Progress, Session, silent
from ldsnn_compiler.targets.boards import board

ORIGINAL, UNIFORM = "original, uniform T0, naive", "uniform T0, exactly optimised"
"""Names of the first two rows; ratios are against the second."""
RECALIBRATED = "recalibrated "
"""Begins the name of a row whose schedule is that of the row named after it."""


@dataclass(frozen=True)
class Effort:
    """How much is evaluated. ``samples`` of the calibration split serve sensitivity, where work is counted on the first
    ``counted``; ``verified`` (all of it for None) serve the rest. There and on the report split work is counted on all
    samples by the interpreter, on the first ``counted_compiled`` where candidates run compiled. ``width`` schedules are
    compared at a time, for ``rounds`` along the frontier, then for at most ``moves`` rounds of local moves, ending
    after ``patience`` rounds in vain. ``resolution`` is the knapsack's. ``memory`` bounds a batch's values and
    ``cache`` the remembered streams, in bytes. ``engine`` is ``interpreter``, ``compiled`` or ``auto``, see
    :mod:`ldsnn_compiler.search.engine`. ``recalibration`` samples serve recalibration."""

    samples: int = 256
    counted: int = 64
    verified: int | None = None
    counted_compiled: int = 256
    width: int = 8
    rounds: int = 3
    moves: int = 12
    patience: int = 4
    resolution: float = 0.01
    memory: int = 1 << 28
    cache: int = 1 << 30
    engine: str = "auto"
    recalibration: int = 64


@dataclass(frozen=True)
class Result:
    """What a search found. ``schedule`` is the one asked for (of ``both`` the binary one), ``schedules`` holds all by
    row name; ``front`` the schedules that none beats on the calibration split; ``rows`` the report split's figures,
    of which ``baselines`` are those that were not searched for; ``statement`` what the data resolve."""

    schedule: Schedule
    schedules: Mapping[str, Schedule]
    front: Sequence[Mapping[str, Any]]
    rows: Sequence[Row]
    baselines: Mapping[str, Row]
    statement: str
    report: Report
    evaluated: int = 0


@dataclass(frozen=True)
class _Search:
    """What all parts of one search share."""

    graph: Graph
    budget: float
    cost: Cost
    caution: float
    effort: Effort
    seed: int
    journal: Journal
    progress: Progress
    hold: tuple[str, ...]
    uneven: bool
    engine: Engine
    recalibrate: bool
    latency: LatencyModel | None
    sessions: list[Session] = field(default_factory=list)

    def session(self, x: Tensor, counted: int | None = None, adjust: Adjustment | None = None) -> Session:
        effort = self.effort
        if counted is None and self.engine.name == "compiled":
            counted = effort.counted_compiled
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
        return Criterion(self.budget, self.caution, predictions, None if labels is None else labels.tolist())


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
    caution: float = 0.5,
    recalibrate: bool = False,
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
        cost: ``synaptic``, ``neurons`` or ``latency`` (of kernels measured on this machine, if it is the target; else
            modelled).
        target: board, named in the report.
        storage: Optuna storage (database URL or journal file) in which the search is resumed and shared.
        seed: of random starts; the same seed gives the same schedule.
        hold: paths of layers to leave as they are.
        uneven: also timesteps whose ratio to the original's is not whole.
        caution: standard errors of the drop that are added to it before it is held against the budget.
        recalibrate: add a row for each schedule after recalibration (:mod:`ldsnn_compiler.search.recalibrate`), the
            uniform ones too.
        effort: how much is evaluated.
        progress: called with phase, done, total and seconds left.

    Raises:
        LdsnnError: data that do not fit, unknown names, a budget outside 0..1, a storage that cannot be opened.
    """
    if not 0 <= budget <= 1:
        raise LdsnnError(f"a budget is a share of samples in 0..1, not {budget}")
    effort, modes = effort or Effort(), ("binary", "graded") if spikes == "both" else (spikes,)
    spaces = {mode: space(graph, mode, hold=hold, uneven=uneven) for mode in modes}
    search = _Search(
        graph, budget, cost_named(cost), caution, effort, seed, open_journal(storage, f"{graph.name}"), progress,
        tuple(hold), uneven, engine(effort.engine, graph, len(data.report[0]), target),
        recalibrate, _latency(cost, target),
    )  # fmt: skip
    found = {mode: _search(search, spaces[mode], data) for mode in modes}
    return _result(search, found, data, cost, target, spikes)


def _latency(cost: str, target: str) -> LatencyModel | None:
    """Measured latencies, where they are the cost and can be taken here."""
    machine = board(target)
    return LatencyModel(machine) if cost == "latency" and not machine.missing() else None


@dataclass(frozen=True)
class _Found:
    """One mode's outcome on the calibration split."""

    space: Space
    best: Point
    uniform: Point
    uniform_name: str
    explorer: Explorer
    session: Session


def _search(search: _Search, where: Space, data: Data) -> _Found:
    x, labels = data.calibration
    if (count := search.verified(len(x))) < len(x):
        some = _spread(len(x), count)
        x, labels = x[some], None if labels is None else labels[some]
    session = search.session(x)
    chosen = _spread(len(x), search.effort.samples)
    small = session if len(chosen) == len(x) else search.session(x[chosen], search.effort.counted)
    small_labels = labels if labels is None or small is session else labels[chosen]
    explorer = Explorer(session, where, search.criterion(session, labels), search.cost, {})
    identity = (0,) * len(where.groups)
    uniform, name = _best_uniform(search, explorer, small, small_labels, identity)
    if any(len(group.choices) > 1 for group in where.groups):
        profile = measure(small, where, uniform.picks)
        model = Model(search.graph, where, profile, search.cost)
        frontier = model.frontier(search.effort.resolution, search.seed)
        explorer.follow(frontier, search.effort.width, search.effort.rounds)
        start = explorer.best or uniform
        explorer.improve(model, start, search.effort.width, search.effort.moves, search.effort.patience)
    return _Found(where, explorer.best or uniform, uniform, name, explorer, session)


def _spread(count: int, wanted: int) -> Tensor:
    """Indices of ``wanted`` samples spread evenly over ``count``."""
    return torch.arange(count) if wanted >= count else torch.div(torch.arange(wanted) * count, wanted).long()


def _best_uniform(
    search: _Search, explorer: Explorer, small: Session, labels: Tensor | None, identity: Picks
) -> tuple[Point, str]:
    """The cheapest uniform schedule that is good enough: screened on few samples, then verified on all, cheapest
    first. Leaving everything as it is always qualifies."""
    where = explorer.space
    names = {where.uniform(u): str(u) for u in reversed(where.uniforms())}
    names.setdefault(identity, "T0")
    figures = dict(zip(names, small.evaluate([where.schedule(p) for p in names], "uniform schedules"), strict=True))
    screen = search.criterion(small, labels)
    left = sorted(
        (p for p in names if not screen.hopeless(figures[p])), key=lambda p: (figures[p].cost(search.cost), p)
    )
    explorer.look([identity], "uniform schedules")
    for picks in left:
        (point,) = explorer.look([picks], "uniform schedules")
        if explorer.criterion.met(point.figures):
            return point, names[picks]
    return explorer.seen[identity], names[identity]


def _result(search: _Search, found: Mapping[str, _Found], data: Data, cost: str, target: str, spikes: str) -> Result:
    x, labels = data.report
    session = search.session(x)
    criterion = search.criterion(session, labels)
    named: dict[str, tuple[Schedule, str]] = {}
    first = next(iter(found.values()))
    named[UNIFORM] = first.space.schedule((0,) * len(first.space.groups)), "baseline"
    for mode, each in found.items():
        named[f"best uniform, {mode}"] = each.space.schedule(each.uniform.picks), "baseline"
        named[f"per layer, {mode}"] = each.space.schedule(each.best.picks), "searched"
    figures = session.evaluate([s for s, _ in named.values()], "report split")
    everything = {ORIGINAL: session.reference(), **dict(zip(named, figures, strict=True))}
    schedules = {name: schedule for name, (schedule, _) in named.items()}
    everything |= _recalibrated(search, schedules, data)
    of = schedules | {f"{RECALIBRATED}{name}": schedule for name, schedule in schedules.items()}
    rows = [_row(name, f, of.get(name), criterion, search.graph) for name, f in everything.items()]
    headline = f"per layer, {next(iter(found))}"
    details = {
        "budget": search.budget, "spikes": spikes, "cost": cost, "seed": search.seed, "caution": search.caution,
        "data": {"note": data.note, "calibration": len(data.calibration[0]), "report": len(x),
                 "verified": search.verified(len(data.calibration[0])),
                 "labels": labels is not None, "work_counted_on": session.evaluator.counted},
        "engine": search.engine.name,
        "headline": headline, "reference": UNIFORM,
        "uniform": {f"best uniform, {mode}": each.uniform_name for mode, each in found.items()},
        "held": dict(first.space.held),
        "figures": {name: _figures(f, everything[UNIFORM], criterion, search.budget) for name, f in everything.items()},
        "schedules": {name: _layers(schedule) for name, schedule in schedules.items()},
        "layers": {name: _per_layer(search.graph, f) for name, f in everything.items()},
        "front": [point for mode, each in found.items() for point in _front(mode, each)],
    }  # fmt: skip
    statement = criterion.compare(everything[headline]).verdict(search.budget)
    report = Report(search.graph.name, target, rows=rows, threads=torch.get_num_threads(), details=details)
    searched = {name for name, (_, kind) in named.items() if kind == "searched"}
    baselines = {row.name: row for row in rows if row.name.removeprefix(RECALIBRATED) not in searched}
    return Result(
        schedules[headline], {n: schedules[n] for n in named if n in searched}, details["front"], rows,  # type: ignore[arg-type]
        baselines, statement, report, sum(s.evaluated for s in search.sessions),
    )  # fmt: skip


def _recalibrated(search: _Search, schedules: Mapping[str, Schedule], data: Data) -> dict[str, Figures]:
    """Report figures of the same schedules after recalibration, if asked for."""
    if not search.recalibrate:
        return {}
    x = data.calibration[0]
    samples = as_input(search.graph.inputs[0], x[_spread(len(x), search.effort.recalibration)])
    session = search.session(data.report[0], adjust=Recalibration(search.graph, samples))
    figures = session.evaluate(list(schedules.values()), "recalibrated")
    return {f"{RECALIBRATED}{name}": each for name, each in zip(schedules, figures, strict=True)}


def _row(name: str, figures: Figures, schedule: Schedule | None, criterion: Criterion, graph: Graph) -> Row:
    layers = schedule.layers if schedule else _original(graph)
    work, count = totals(figures.nodes), len(figures.predictions)
    agree = sum(a == b for a, b in zip(figures.predictions, criterion.reference, strict=True))
    right = None
    if criterion.labels is not None:
        right = sum(a == b for a, b in zip(figures.predictions, criterion.labels, strict=True))
    return Row(
        name,
        {path: layer.timesteps for path, layer in layers.items()},
        {path: _levels(figures, graph, path, layer) for path, layer in layers.items()},
        None if right is None else right / count,
        None if right is None else wilson(right, count),
        agree / count,
        work["synaptic_updates"],
        work["synaptic_updates_weighted"],
        work["neurons_evaluated"],
        sum(layer.timesteps for layer in layers.values()),
    )


def _levels(figures: Figures, graph: Graph, path: str, layer: LayerSchedule) -> int:
    """What a layer's spikes may count to: its levels, and under ``micro`` the steps it runs in one."""
    own = neuron_layers(graph)[path]
    before = own.type.signal.levels or 0
    if layer.method == "micro":
        return before * (own.type.timesteps // layer.timesteps)
    return layer.levels if before == 1 else before


def _original(graph: Graph) -> dict[str, LayerSchedule]:
    return {path: LayerSchedule(node.type.timesteps) for path, node in neuron_layers(graph).items()}


def _layers(schedule: Schedule) -> dict[str, dict[str, Any]]:
    return {p: {"timesteps": e.timesteps, "levels": e.levels, "method": e.method} for p, e in schedule.layers.items()}


def _figures(figures: Figures, reference: Figures, criterion: Criterion, budget: float) -> dict[str, Any]:
    """Everything about one row that the row's schema has no place for."""
    work, base = totals(figures.nodes), totals(reference.nodes)
    ratios = {key: base[key] / work[key] if work[key] else None for key in work}
    paired = criterion.compare(figures).to_json(budget)
    return {"divergence_nats": figures.loss, "work": work, "ratios": ratios, "paired": paired}


def _per_layer(graph: Graph, figures: Figures) -> list[dict[str, Any]]:
    """Work of every node that does any, in graph order; neuron layers with their path and density."""
    paths = {node.name: path for path, node in neuron_layers(graph).items()}
    return [
        {
            "path": paths.get(name, work.path or name),
            "op": work.op,
            "timesteps": work.timesteps,
            "density": work.density,
            "synaptic_updates": work.synaptic_updates,
            "neurons_evaluated": work.neurons_evaluated,
        }
        for name, work in figures.nodes.items()
        if work.synaptic_updates or work.neurons_evaluated
    ]


def _front(mode: str, found: _Found) -> list[dict[str, Any]]:
    """Truly evaluated schedules that none beats in both drop and cost on the calibration split."""
    criterion, kept = found.explorer.criterion, list[dict[str, Any]]()
    least = float("inf")
    ranked = sorted(
        found.explorer.seen.values(), key=lambda p: (criterion.compare(p.figures).drop, p.cost, p.figures.loss, p.picks)
    )
    for point in ranked:
        if point.cost >= least:
            continue
        least = point.cost
        compared = criterion.compare(point.figures)
        kept.append(
            {
                "spikes": mode,
                "drop": compared.drop,
                "good_enough": criterion.met(point.figures),
                "chosen": point.picks == found.best.picks,
                "accuracy": _accuracy(point.figures, criterion),
                "work": totals(point.figures.nodes),
                "schedule": _layers(found.space.schedule(point.picks)),
            }
        )
    return kept


def _accuracy(figures: Figures, criterion: Criterion) -> float:
    """Share of samples predicted right, or like the original where there are no labels."""
    truth = criterion.labels if criterion.labels is not None else criterion.reference
    return sum(a == b for a, b in zip(figures.predictions, truth, strict=True)) / len(truth)
