"""What a schedule costs: work per node, the costs a search may minimise, and an energy estimate.

Work is per sample. ``additions`` are those of synapses (one per update) and of neuron programs; ``multiplications``
those that graded and real inputs need at synapses, and those of neuron programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.work import LayerWork
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.program import fold

ADD_PJ = 0.9
"""Energy of a 32-bit floating-point addition in pJ, 45 nm (Horowitz, ISSCC 2014)."""
MULTIPLY_PJ = 3.7
"""Energy of a 32-bit floating-point multiplication in pJ, 45 nm (Horowitz, ISSCC 2014)."""
NS_PER_UPDATE = 0.014
"""Time of a synaptic update in ns: a VGG-16 prototype's 8.3 ms at T=8 for about 0.6 G updates, fp32, 2 Zen-4 cores."""
NS_PER_NEURON = 0.3
"""Time of a neuron evaluation in ns, packing included, of the same prototype."""


@dataclass(frozen=True)
class NodeWork:
    """Work of one node for one sample. ``latency_ms`` is its share of measured kernel times, None where none were."""

    op: str
    path: str
    timesteps: int
    density: float = 0.0
    synaptic_updates: float = 0.0
    synaptic_updates_weighted: float = 0.0
    multiplications: float = 0.0
    neurons_evaluated: float = 0.0
    neuron_additions: float = 0.0
    neuron_multiplications: float = 0.0
    latency_ms: float | None = None

    @classmethod
    def of(cls, work: LayerWork, samples: int, neuron: Neuron | None) -> NodeWork:
        """From the counter's sums over ``samples``."""
        adds, muls = program_operations(neuron) if neuron else (0, 0)
        evaluated = work.neurons_evaluated / samples
        return cls(
            work.op, work.path, work.timesteps, work.density, work.synaptic_updates / samples,
            work.synaptic_updates_weighted / samples, work.multiplications / samples, evaluated,
            evaluated * adds, evaluated * muls,
        )  # fmt: skip


@cache
def program_operations(neuron: Neuron) -> tuple[int, int]:
    """Additions (subtractions, comparisons and rounding among them) and multiplications (and divisions) of one run of
    the program."""
    adds = muls = 0

    def count(op: str, args: list[int]) -> int:
        nonlocal adds, muls
        adds += op in ("add", "sub", "ge", "gt", "min", "max", "floor", "ceil")
        muls += op in ("mul", "div")
        return 0

    for assign in neuron.program.steps:
        fold(assign.value, lambda _: 0, lambda _: 0, count)
    return adds, muls


TOTALS = ("synaptic_updates", "synaptic_updates_weighted", "multiplications", "neurons_evaluated")


def totals(nodes: Mapping[str, NodeWork]) -> dict[str, float]:
    """Sums over the network: :data:`TOTALS`, ``additions``, all ``multiplications``, ``energy_nj`` and
    ``latency_ms`` (the cost of that name)."""
    found = {name: sum(getattr(w, name) for w in nodes.values()) for name in TOTALS}
    found["additions"] = found["synaptic_updates"] + sum(w.neuron_additions for w in nodes.values())
    found["multiplications"] += sum(w.neuron_multiplications for w in nodes.values())
    found["energy_nj"] = (found["additions"] * ADD_PJ + found["multiplications"] * MULTIPLY_PJ) * 1e-3
    found["latency_ms"] = sum(_latency(w) for w in nodes.values()) * 1e-6
    return found


Cost = Callable[[NodeWork], float]


def _synaptic(work: NodeWork) -> float:
    return work.synaptic_updates + TIE * work.neurons_evaluated


def _neurons(work: NodeWork) -> float:
    return work.neurons_evaluated + TIE * work.synaptic_updates


def _latency(work: NodeWork) -> float:
    """In ns: measured, or by the constants above."""
    if work.latency_ms is not None:
        return work.latency_ms * 1e6
    return work.synaptic_updates * NS_PER_UPDATE + work.neurons_evaluated * NS_PER_NEURON


TIE = 1e-3
"""Weight of the work that a cost does not ask for: it settles ties."""

COSTS: Mapping[str, Cost] = {"synaptic": _synaptic, "neurons": _neurons, "latency": _latency}
"""Costs by name, each a sum over nodes; ``latency`` is that of kernels, where they were measured, else modelled from
the constants above."""
WORK = "work"
"""The cost that weighs both kinds of work alike: synaptic updates and neuron evaluations, each as a share of the
original network's, added."""


def check_cost(name: str) -> None:
    """Raise LdsnnError unless there is a cost of that name."""
    if name not in (*COSTS, WORK):
        raise LdsnnError(f"cost is one of {', '.join((*COSTS, WORK))}, not {name!r}")


def cost(name: str, original: Mapping[str, NodeWork], each: bool = False) -> Cost:
    """The cost of that name for schedules of a network whose original takes this work.

    ``each``: every spike is an update, also where a synapse meets the average of several. Of spikes that are to be
    binary that is what counts, or else averages would pass for graded spikes that nobody asked for. Latency is what
    it is.
    """
    check_cost(name)
    if each and name != "latency":
        plain = cost(name, {node: spikes_counted(work) for node, work in original.items()})
        return lambda work: plain(spikes_counted(work))
    if name in COSTS:
        return COSTS[name]
    base = totals(original)
    synaptic, neurons = (1 / max(1.0, base[key]) for key in ("synaptic_updates", "neurons_evaluated"))
    return lambda work: work.synaptic_updates * synaptic + work.neurons_evaluated * neurons


def spikes_counted(work: NodeWork) -> NodeWork:
    """The work with every spike an update of its own."""
    return replace(work, synaptic_updates=work.synaptic_updates_weighted)


def to_json(nodes: Mapping[str, NodeWork]) -> dict[str, dict[str, object]]:
    """Plain data that :func:`from_json` reads."""
    return {name: asdict(work) for name, work in nodes.items()}


def from_json(data: Mapping[str, Mapping[str, object]]) -> dict[str, NodeWork]:
    """The nodes that :func:`to_json` wrote."""
    return {name: NodeWork(**work) for name, work in data.items()}  # type: ignore[arg-type]
