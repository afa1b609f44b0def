"""Reading NIR: a file, or a graph in memory, becomes a graph of streams.

NIR is continuous in time and says neither how long a run lasts nor how long a timestep is: both are given here. Edges
into the same node add up.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ldsnn_compiler.errors import ImportRefused, LdsnnError, Problem
from ldsnn_compiler.frontend.nir.builder import Builder, Shape
from ldsnn_compiler.frontend.nir.discretise import Method, Step
from ldsnn_compiler.frontend.nir.nodes import KINDS
from ldsnn_compiler.frontend.nir.source import Net, Unit, flat, read_source
from ldsnn_compiler.ir.graph import Graph, Value
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.ir.verify import verify


@dataclass(frozen=True)
class Imported:
    """A graph, and what its import has to say."""

    graph: Graph
    notes: tuple[Problem, ...]


def read_nir(
    source: str | Path | Any, timesteps: int | None = None, dt: float | None = None, *, discretise: Method = "zoh"
) -> Graph:
    """Import a ``.nir`` file, or a ``nir.NIRGraph``; what was repaired comes as warnings.

    Args:
        source: the file, or the graph.
        timesteps: T0, the timesteps of a run.
        dt: length of a timestep in the unit of the file's time constants; 1 for a network of IF neurons that adds up
            one frame a timestep.
        discretise: ``zoh`` solves the neurons' equations exactly for input that is held during a timestep; ``euler``
            takes one first-order step.

    Raises:
        ImportRefused: with every problem found.
    """
    imported = import_nir(source, timesteps, dt, discretise=discretise)
    for note in imported.notes:
        warnings.warn(str(note), stacklevel=2)
    return imported.graph


def import_nir(
    source: str | Path | Any, timesteps: int | None = None, dt: float | None = None, *, discretise: Method = "zoh"
) -> Imported:
    """As :func:`read_nir`, the warnings as a list."""
    if isinstance(source, str | Path):
        name, file, node = Path(source).stem, str(source), read_source(Path(source))
    else:
        name, file, node = "net", "NIR graph", source.to_dict()
    graph, step = Graph(name, _timesteps(timesteps, file)), _step(dt, discretise, file)
    return _Reader(flat(node, file), Builder(graph, step, file)).imported()


def _timesteps(timesteps: int | None, file: str) -> int:
    if timesteps is None:
        hint = "give the timesteps of a run: --timesteps, or timesteps="
        raise ImportRefused(Problem("NIR does not say how long a run lasts", where=file, hint=hint))
    return timesteps


def _step(dt: float | None, discretise: Method, file: str) -> Step:
    if dt is None:
        hint = "give dt in the unit of its time constants: --dt, or dt=; 1 for IF neurons that add up a frame a step"
        raise ImportRefused(Problem("NIR does not say how long a timestep is", where=file, hint=hint))
    return Step(dt, discretise)


class _Reader:
    """One import: units in the order of the data flow, each handed the sum of what its in-edges carry."""

    def __init__(self, net: Net, builder: Builder) -> None:
        self.net, self.builder, self.graph = net, builder, builder.graph
        self.values: dict[str, Value] = {}

    def imported(self) -> Imported:
        problems = [p for unit in self.net.units.values() for p in self._faults(unit)]
        if problems:
            raise ImportRefused(problems)
        for unit in self._ordered():
            try:
                self._import(unit)
            except ImportRefused:
                raise
            except LdsnnError as error:
                raise ImportRefused(
                    [Problem(p.message, self.builder.at(unit), unit.kind, p.attribute) for p in error.problems]
                ) from None
        verify(self.graph)
        return Imported(self.graph, tuple(self.builder.notes))

    def _faults(self, unit: Unit) -> Iterator[Problem]:
        """Unknown types, missing and unknown parameters; defaults are filled in."""
        at = self.builder.at(unit)
        if unit.kind in ("Input", "Output"):
            if "shape" not in unit.values:
                yield Problem("is missing", at, unit.kind, "shape")
            return
        if unit.kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            yield Problem(f"cannot be imported; known are Input, Output, {known}", at, unit.kind)
            return
        kind = KINDS[unit.kind]
        for name in kind.required:
            if name not in unit.values:
                yield Problem("is missing", at, unit.kind, name)
        for name in unit.values.keys() - {*kind.required, *kind.optional}:
            yield Problem("is no parameter of this type", at, unit.kind, name)
        absent = {k: v for k, v in kind.optional.items() if v is not None and k not in unit.values}
        unit.values.update(absent)
        unit.defaults = frozenset(absent)

    def _ordered(self) -> list[Unit]:
        """Units, sources first."""
        left, done, order = dict(self.net.units), set[str](), list[Unit]()
        while left:
            ready = [u for n, u in left.items() if done.issuperset(self.net.sources(n))]
            if not ready:
                raise ImportRefused(Problem(f"a cycle runs through {', '.join(left)}", where=self.builder.file))
            for unit in ready:
                del left[unit.name]
                done.add(unit.name)
            order += ready
        return order

    def _import(self, unit: Unit) -> None:
        if unit.kind == "Input":
            stream = Stream(self.graph.base_timesteps, Fraction(1), self._shape(unit))
            self.values[unit.name] = self.builder.add("input", unit, [], type=stream, time="sequence").result
            return
        x = self._sum(unit)
        if unit.kind == "Output":
            self._check_output(unit, x)
            self.builder.add("output", unit, [x], time="sequence")
            return
        self.values[unit.name] = KINDS[unit.kind].importer(self.builder, unit, x)

    def _sum(self, unit: Unit) -> Value:
        """What the unit's in-edges carry, added up in the file's order."""
        carried = [self.values[name] for name in self.net.sources(unit.name)]
        if not carried:
            raise self.builder.refuse(unit, "has no in-edge, so no input")
        return carried[0] if len(carried) == 1 else self.builder.add("add", unit, carried, "sum").result

    def _shape(self, unit: Unit) -> Shape:
        return tuple(int(n) for n in np.atleast_1d(self.builder.array(unit, "shape"))) or (1,)

    def _check_output(self, unit: Unit, x: Value) -> None:
        declared = self._shape(unit)
        if declared != x.type.shape:
            if [n for n in declared if n > 1] != [n for n in x.type.shape if n > 1]:
                raise self.builder.refuse(unit, f"is {declared}, what arrives has shape {x.type.shape}", "shape")
            self.builder.note(unit, f"is {declared}, read as {x.type.shape}, what arrives", "shape")
