"""Reading NIR: a file, or a graph in memory, becomes a graph of streams.

NIR is continuous in time and says neither how long a run lasts nor how long a timestep is: both are given here, or
stand in the metadata of a file that :mod:`~ldsnn_compiler.frontend.nir.writer` wrote. Edges into the same node add up.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from ldsnn_compiler.errors import ImportRefused, LdsnnError, Problem
from ldsnn_compiler.frontend.nir.builder import Builder, Shape, stripped
from ldsnn_compiler.frontend.nir.cycles import in_order, waiting_edges
from ldsnn_compiler.frontend.nir.delays import Delayed, delayed, one_step, steps_of
from ldsnn_compiler.frontend.nir.discretise import Method, Step
from ldsnn_compiler.frontend.nir.flat import flat
from ldsnn_compiler.frontend.nir.metadata import entry, schedule_of
from ldsnn_compiler.frontend.nir.nodes import KINDS, complete, faults, keeps_state, shape_in, shape_out
from ldsnn_compiler.frontend.nir.source import Net, Unit, read_source
from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.ir.verify import verify
from ldsnn_compiler.passes._grids import settle_delays
from ldsnn_compiler.schedule import Schedule

_ASKED = {
    "timesteps": "give --timesteps, or timesteps=",
    "dt": "give --dt, or dt=, in the file's unit of time; 1 for IF neurons that add up a frame a timestep",
}


@dataclass(frozen=True)
class Imported:
    """A graph, what its import has to say, and the schedule in the file's metadata, if there is one."""

    graph: Graph
    notes: tuple[Problem, ...]
    schedule: Schedule | None = None


def read_nir(
    source: str | Path | Any,
    timesteps: int | None = None,
    dt: float | None = None,
    *,
    discretise: Method | None = None,
) -> Graph:
    """Import a ``.nir`` file, or a ``nir.NIRGraph``; what was repaired comes as warnings.

    Args:
        source: the file, or the graph.
        timesteps: T0, the timesteps of a run. Default: what the file's metadata say.
        dt: length of a timestep in the unit of the file's time constants; 1 for a network of IF neurons that adds up
            one frame a timestep. Default: what the file's metadata say.
        discretise: ``zoh`` solves the neurons' equations exactly for input that is held during a timestep; ``euler``
            takes one first-order step. Default: what the file's metadata say, else ``zoh``.

    Raises:
        ImportRefused: with every problem found.
    """
    imported = import_nir(source, timesteps, dt, discretise=discretise)
    for note in imported.notes:
        warnings.warn(str(note), stacklevel=2)
    if imported.schedule is not None:
        warnings.warn(f"{source}: holds a schedule, which `ldsnn import` writes to a file of its own", stacklevel=2)
    return imported.graph


def import_nir(
    source: str | Path | Any,
    timesteps: int | None = None,
    dt: float | None = None,
    *,
    discretise: Method | None = None,
) -> Imported:
    """As :func:`read_nir`, the warnings as a list; with the schedule, if the file holds one."""
    if isinstance(source, str | Path):
        name, file, node = Path(source).stem, str(source), read_source(Path(source))
    else:
        name, file, node = "net", "NIR graph", source.to_dict()
    net, notes = flat(node, file)
    for unit in net.units.values():
        complete(unit)
    problems = [p for unit in net.units.values() for p in faults(unit, f"{file}: {unit.name}")]
    steps, length = timesteps or entry(net.metadata, "timesteps"), dt or entry(net.metadata, "dt")
    if steps is None:
        problems.append(Problem("NIR does not say how long a run lasts", file, hint=_ASKED["timesteps"]))
    if length is None:
        problems.append(Problem("NIR does not say how long a timestep is", file, hint=_ASKED["dt"]))
    if problems or steps is None or length is None:
        raise ImportRefused(problems)
    step = Step(length, discretise or entry(net.metadata, "discretise") or "zoh")
    return _Reader(net, Builder(Graph(name, int(steps)), step, file, notes)).imported()


class _Reader:
    """One import: units in the order of the data flow, each handed the sum of what its in-edges carry."""

    def __init__(self, net: Net, builder: Builder) -> None:
        self.net, self.builder, self.graph = net, builder, builder.graph
        self.values: dict[str, Value] = {}
        self.late: dict[str, Delayed] = {}
        self.waits = set(self._waits())
        self.waiting = waiting_edges(net, lambda name: keeps_state(net.units[name]), self.waits.__contains__)

    def imported(self) -> Imported:
        waits = self.waits.__contains__
        for name in in_order(self.net, self.waiting, waits):
            self._attempt(self._declare if waits(name) else self._import, self.net.units[name])
        with self.graph.edit():
            for name in self.late:
                self._attempt(self._close, self.net.units[name])
            settle_delays(self.graph)
        verify(self.graph)
        layers = [node.path for node in self.graph.of("neuron") if node.path in self.net.units]
        schedule = schedule_of(self.net, self.graph.base_timesteps, layers)
        return Imported(self.graph, tuple(self.builder.notes), schedule)

    def _attempt(self, action: Callable[[Unit], None], unit: Unit) -> None:
        """Do something for a unit; errors of the graph name the unit."""
        try:
            action(unit)
        except ImportRefused:
            raise
        except LdsnnError as error:
            at = self.builder.at(unit)
            raise ImportRefused(Problem(p.message, at, unit.kind, p.attribute) for p in error.problems) from None

    def _waits(self) -> Iterator[str]:
        """Delays that a cycle runs through, of a timestep or more."""
        for part in nx.strongly_connected_components(nx.DiGraph(self.net.edges)):
            for unit in (self.net.units[name] for name in sorted(part) if len(part) > 1):
                if unit.kind == "Delay" and steps_of(self.builder, unit, shape_out(unit) or (1,)).all():
                    yield unit.name

    # ---- units

    def _import(self, unit: Unit) -> None:
        if unit.kind == "Input":
            self.values[unit.name] = self._input(unit)
            return
        x = self._sum(unit)
        if unit.kind == "Output":
            self._output(unit, x)
            return
        self.values[unit.name] = KINDS[unit.kind].importer(self.builder, unit, x)

    def _input(self, unit: Unit) -> Value:
        stream = Stream(self.graph.base_timesteps, Fraction(1), self._input_shape(unit))
        if entry(unit.metadata, "time") != "static":
            return self.builder.add("input", unit, [], type=stream, time="sequence").result
        held = stream.with_(timesteps=1, dt=Fraction(stream.timesteps))
        static = self.builder.add("input", unit, [], type=held, time="static").result
        return self.builder.add("resample", unit, [static], "hold", dt=1, mode="repeat").result

    def _input_shape(self, unit: Unit) -> Shape:
        """The declared shape; a batch axis in front is dropped if only then the next nodes can take it."""
        users = [self.net.units[name] for name in self.net.targets(unit.name)]
        if "shape" not in unit.values:
            shape = next(filter(None, map(shape_in, users)), None)
            if shape is None:
                raise self.builder.refuse(unit, "nothing says what it takes", "shape")
            return shape
        shape = self._declared(unit)
        if shape[0] == 1 and len(shape) > 1 and all(_takes(u, shape[1:]) and not _takes(u, shape) for u in users):
            self.builder.note(unit, f"is {shape}, read as {shape[1:]} without the batch axis", "shape")
            return shape[1:]
        return shape

    def _declared(self, unit: Unit) -> Shape:
        return tuple(int(n) for n in np.atleast_1d(self.builder.array(unit, "shape"))) or (1,)

    def _output(self, unit: Unit, x: Value) -> None:
        declared = self._declared(unit) if "shape" in unit.values else x.type.shape
        if declared != x.type.shape:
            if [n for n in declared if n > 1] != [n for n in x.type.shape if n > 1]:
                raise self.builder.refuse(unit, f"is {declared}, what arrives has shape {x.type.shape}", "shape")
            self.builder.note(unit, f"is {declared}, read as {x.type.shape}, what arrives", "shape")
        readout = entry(unit.metadata, "readout")
        if readout is not None:
            x = self.builder.add("readout", unit, [x], "readout", mode=readout).result
        self.builder.add("output", unit, [x], time="sequence" if readout is None else "squeeze")

    # ---- edges

    def _sum(self, unit: Unit) -> Value:
        """What the unit's in-edges carry, added up in the file's order."""
        sources = self.net.sources(unit.name)
        if not sources:
            raise self.builder.refuse(unit, "has no in-edge, so no input")
        carried = [self._carried(name, unit) for name in sources]
        return carried[0] if len(carried) == 1 else self.builder.add("add", unit, carried, "sum").result

    def _carried(self, name: str, unit: Unit) -> Value:
        if (name, unit.name) not in self.waiting:
            return self.values[name]
        if name not in self.late:
            source = self.net.units[name]
            self.late[name] = one_step(self.builder, source, self._stream(source, unit))
        return self.late[name].result

    def _declare(self, unit: Unit) -> None:
        """A Delay in a cycle: its result before its operand."""
        self.late[unit.name] = delayed(self.builder, unit, self._stream(unit, unit))
        self.values[unit.name] = self.late[unit.name].result

    def _stream(self, source: Unit, target: Unit) -> Stream:
        """The type of a value that is not there yet; whether it holds spikes is settled in the end."""
        shape = shape_out(source) or shape_in(target)
        if shape is None:
            ready = [self.values[name].type.shape for name in self.net.sources(target.name) if name in self.values]
            if not ready:
                raise self.builder.refuse(source, "is part of a cycle, and nothing says what shape it gives")
            shape = ready[0]
        return Stream(self.graph.base_timesteps, Fraction(1), shape)

    def _close(self, unit: Unit) -> None:
        """Hand a delay its operand, now that there is one."""
        late = self.late[unit.name]
        operand = self._sum(unit) if unit.name in self.waits else self.values[unit.name]
        expected = late.nodes[0]["type"].shape
        if operand.type.shape != expected:
            message = f"gives shape {operand.type.shape} where the cycle that it closes takes {expected}"
            raise self.builder.refuse(unit, message)
        late.connect(self.builder, operand)


def _takes(unit: Unit, shape: Shape) -> bool:
    """Whether a unit can take an input of that shape."""
    if unit.kind in ("Conv1d", "Conv2d"):
        weight, groups = np.shape(unit.values["weight"]), int(np.max(unit.values["groups"]))
        return len(shape) == len(weight) - 1 and shape[0] == weight[1] * groups
    wanted = shape_in(unit)
    return wanted is None or shape in (wanted, stripped(wanted))
