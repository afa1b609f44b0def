"""Delays: those that a file asks for, and the timestep that recurrence takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ldsnn_compiler.frontend.nir.builder import Builder, Shape
from ldsnn_compiler.frontend.nir.source import Unit
from ldsnn_compiler.ir.graph import Node, Value
from ldsnn_compiler.ir.types import Stream

_WHOLE = 1e-6
"""How far a delay may be from a whole number of timesteps, relative: times in files are rounded."""


@dataclass(frozen=True)
class Delayed:
    """Delays whose operand may come later: ``nodes`` all take the same one, ``result`` is what comes out."""

    nodes: tuple[Node, ...]
    result: Value

    def connect(self, b: Builder, operand: Value) -> None:
        """Give them their operand."""
        for node in self.nodes:
            b.graph.set_operand(node, 0, operand)


def one_step(b: Builder, unit: Unit, stream: Stream) -> Delayed:
    """What a unit gave one timestep before, 0 in the first."""
    node = b.add("delay", unit, [], "before", steps=1, type=stream)
    return Delayed((node,), node.result)


def delayed(b: Builder, unit: Unit, stream: Stream, now: Value | None = None) -> Delayed:
    """A Delay node, ``y(t) = x(t - delay)``; delays that differ are one ``delay`` each, masked and added.

    Delays of 0 timesteps need the operand at once: ``now``.
    """
    steps = steps_of(b, unit, stream.shape)
    lengths = sorted(set(steps.ravel().tolist()))
    several = len(lengths) > 1
    nodes = {n: b.add("delay", unit, [], f"by{n}" if several else "", steps=n, type=stream) for n in lengths if n}
    ways = {n: nodes[n].result if n else now for n in lengths}
    masks = {n: (steps == n).astype(np.float64) for n in lengths}
    parts = [b.scaled(unit, way, masks[n], f"mask{n}") for n, way in ways.items() if way is not None]
    result = b.add("add", unit, parts, "sum").result if several else parts[0]
    return Delayed(tuple(nodes.values()), result)


def delay(b: Builder, unit: Unit, x: Value) -> Value:
    """A Delay outside any cycle."""
    made = delayed(b, unit, x.type, x)
    made.connect(b, x)
    return made.result


def steps_of(b: Builder, unit: Unit, shape: Shape) -> npt.NDArray[np.int64]:
    """A Delay's length in timesteps, for each of its inputs.

    Raises:
        ImportRefused: a length is no whole number of timesteps.
    """
    steps = b.fitted(unit, ("delay",), shape)["delay"] / b.step.dt
    whole = np.round(steps)
    if (np.abs(steps - whole) > _WHOLE * np.maximum(1.0, np.abs(steps))).any() or (steps < 0).any():
        odd = sorted(set(steps.ravel().tolist()))
        message = f"is {', '.join(f'{s:g}' for s in odd[:4])} timesteps of {b.step.dt:g}, not a whole number from 0"
        raise b.refuse(unit, message, "delay", "choose a dt that divides it")
    return whole.astype(np.int64)
