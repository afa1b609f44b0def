"""What importers of NIR nodes share: the graph being built, the timestep, notes and problems, and parameter shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ldsnn_compiler.errors import ImportRefused, Problem
from ldsnn_compiler.frontend.nir.discretise import Array, Step
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import Number, TensorRef

Shape = tuple[int, ...]


@dataclass
class Builder:
    """The state of one import. ``file`` is named in notes and problems."""

    graph: Graph
    step: Step
    file: str
    notes: list[Problem] = field(default_factory=list)

    def note(self, unit: Unit, message: str, attribute: str = "") -> None:
        """Something was repaired or is odd: a warning that names the node."""
        self.notes.append(Problem(message, self.at(unit), unit.kind, attribute))

    def refuse(self, unit: Unit, message: str, attribute: str = "", hint: str = "") -> ImportRefused:
        """The error for a node that cannot be imported; raise it."""
        return ImportRefused(Problem(message, self.at(unit), unit.kind, attribute, hint))

    def at(self, unit: Unit) -> str:
        """Where a node is, for messages."""
        return f"{self.file}: {unit.name}"

    def add(self, op: str, unit: Unit, operands: Iterable[Value], suffix: str = "", **attrs: Any) -> Node:
        """A node of the graph named after the unit."""
        name = f"{unit.name}.{suffix}" if suffix else unit.name
        return self.graph.add(op, operands, path=name, **attrs)

    def scaled(self, unit: Unit, x: Value, factor: Array, name: str = "gain") -> Value:
        """The value times a factor, one for each of its numbers; the value itself if all are 1."""
        number = self.number(unit, name, factor)
        if number == 1.0:
            return x
        by = {"factor": number} if isinstance(number, float) else {"by": number}
        return self.add("scale", unit, [x], name, **by).result

    def tensor(self, unit: Unit, name: str, value: Array) -> TensorRef:
        """A weight, float32 from here on."""
        return self.graph.tensor(f"{unit.name}.{name}", torch.from_numpy(np.ascontiguousarray(value, np.float32)))

    def number(self, unit: Unit, name: str, value: Array) -> Number:
        """A parameter as one number if all are equal, else per channel if it varies no further, else per neuron."""
        if not np.isfinite(value).all():
            raise self.refuse(unit, f"{name} is not finite for timesteps of {self.step.dt:g}", hint="choose another dt")
        if (value == value.flat[0]).all():
            return float(np.float32(value.flat[0]))
        channels = value.reshape(value.shape[0], -1)
        return self.tensor(unit, name, channels[:, 0] if (channels == channels[:, :1]).all() else value)

    def numbers(self, unit: Unit, **values: Array) -> dict[str, Number]:
        """Several parameters as :meth:`number` has them."""
        return {name: self.number(unit, name, value) for name, value in values.items()}

    def array(self, unit: Unit, name: str) -> Array:
        """A parameter as it stands in the file, in float64."""
        try:
            value = np.asarray(unit.values[name], np.float64)
        except (TypeError, ValueError):
            raise self.refuse(unit, f"is no array of numbers: {unit.values[name]!r}", name) from None
        if not np.isfinite(value).all():
            raise self.refuse(unit, f"holds {np.count_nonzero(~np.isfinite(value))} values that are not finite", name)
        return value

    def integers(self, unit: Unit, name: str, count: int) -> Shape:
        """A parameter of whole numbers, one for each of ``count`` axes; a single one serves them all."""
        value = self.array(unit, name).ravel()
        if value.size not in (1, count) or (value != np.floor(value)).any():
            raise self.refuse(unit, f"{value.tolist()} is not one whole number for each of {count} axes", name)
        return tuple(int(v) for v in np.broadcast_to(value, (count,)))

    def fitted(self, unit: Unit, names: Iterable[str], shape: Shape) -> dict[str, Array]:
        """Parameters of a node that works number by number, each in the shape of its input.

        A single number holds for all; axes of length 1 in front are dropped. Both are said in a note.
        """
        found, odd = {}, dict[Shape, list[str]]()
        for name in names:
            value = self.array(unit, name)
            if value.shape != shape:
                if value.size != 1 and stripped(value.shape) != stripped(shape):
                    message = f"shape {value.shape} does not fit the input's shape {shape}"
                    raise self.refuse(unit, message, name)
                if name not in unit.defaults:
                    odd.setdefault(value.shape, []).append(name)
                value = np.broadcast_to(value, shape) if value.size == 1 else value.reshape(shape)
            found[name] = value
        for given, keys in odd.items():
            what = "one number, taken for all of" if not given else f"shape {given}, read as"
            self.note(unit, f"{', '.join(keys)}: {what} shape {shape}")
        return found


def stripped(shape: Shape) -> Shape:
    """Without leading axes of length 1, batch axes that exporters leave; one axis stays."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape
