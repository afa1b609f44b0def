"""What a search tells of schedules it has evaluated: result rows, work per layer, comparisons, the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.results import Row, wilson
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.search.cost import totals
from ldsnn_compiler.search.criterion import Comparison, Criterion
from ldsnn_compiler.search.evaluate import Figures, predictions_drop
from ldsnn_compiler.search.refine import Explorer, Point


def row(
    name: str, figures: Figures, schedule: Schedule | None, reference: Figures, labels: Sequence[int] | None,
    graph: Graph,
) -> Row:  # fmt: skip
    """One schedule's result row (None: the original network); ``agreement`` is with ``reference``."""
    chosen = schedule.layers if schedule else _original(graph)
    work, count = totals(figures.nodes), len(figures.predictions)
    agree = sum(a == b for a, b in zip(figures.predictions, reference.predictions, strict=True))
    right = None
    if labels is not None:
        right = sum(a == b for a, b in zip(figures.predictions, labels, strict=True))
    return Row(
        name,
        {path: layer.timesteps for path, layer in chosen.items()},
        {path: _levels(graph, path, layer) for path, layer in chosen.items()},
        None if right is None else right / count,
        None if right is None else wilson(right, count),
        agree / count,
        work["synaptic_updates"],
        work["synaptic_updates_weighted"],
        work["neurons_evaluated"],
        sum(layer.timesteps for layer in chosen.values()),
    )


def _levels(graph: Graph, path: str, layer: LayerSchedule) -> int:
    """What a layer's spikes may count to: its levels, and under ``micro`` the steps it runs in one."""
    own = neuron_layers(graph)[path]
    before = own.type.signal.levels or 0
    if layer.method == "micro":
        return before * (own.type.timesteps // layer.timesteps)
    return layer.levels if before == 1 else before


def _original(graph: Graph) -> dict[str, LayerSchedule]:
    return {path: LayerSchedule(node.type.timesteps) for path, node in neuron_layers(graph).items()}


def layers_json(schedule: Schedule) -> dict[str, dict[str, Any]]:
    """The schedule's entries by path."""
    return {path: layer.to_json() for path, layer in schedule.layers.items()}


def beside_row(figures: Figures, reference: Figures, criterion: Criterion, budget: float) -> dict[str, Any]:
    """Everything about a schedule that a row's schema has no place for; ratios are of ``reference`` to it."""
    paired = criterion.compare(figures).to_json(budget)
    return {
        "divergence_nats": figures.loss,
        "work": totals(figures.nodes),
        "ratios": ratios(figures, reference),
        "paired": paired,
    }


def ratios(figures: Figures, reference: Figures) -> dict[str, float | None]:
    """How many times less work of each kind than ``reference`` takes."""
    work, base = totals(figures.nodes), totals(reference.nodes)
    return {key: base[key] / work[key] if work[key] else None for key in work}


def against(figures: Figures, other: Figures, truth: Sequence[int]) -> dict[str, Any]:
    """A schedule held against another one: the paired drop from that one's share of right answers, and ratios."""
    compared = Comparison(len(truth), *predictions_drop(other.predictions, figures.predictions, truth))
    return {
        "drop": compared.drop,
        "drop_ci95": compared.interval,
        "lost": compared.lost,
        "won": compared.won,
        "ratios": ratios(figures, other),
    }


def per_layer(graph: Graph, figures: Figures) -> list[dict[str, Any]]:
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


def front(mode: str, explorer: Explorer, best: Point) -> list[dict[str, Any]]:
    """Truly evaluated schedules that none beats in both drop and cost on the calibration split."""
    criterion = explorer.criterion
    return [
        {
            "spikes": mode,
            "drop": criterion.compare(point.figures).drop,
            "good_enough": criterion.met(point.figures),
            "chosen": point.picks == best.picks,
            "accuracy": _accuracy(point.figures, criterion),
            "work": totals(point.figures.nodes),
            "schedule": layers_json(explorer.space.schedule(point.picks)),
        }
        for point in explorer.front()
    ]


def _accuracy(figures: Figures, criterion: Criterion) -> float:
    """Share of samples predicted right, or like the original where there are no labels."""
    return sum(a == b for a, b in zip(figures.predictions, criterion.truth, strict=True)) / len(criterion.truth)
