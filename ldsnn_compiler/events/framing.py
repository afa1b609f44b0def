"""Frames of a network's input from events."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.events.binning import AXES, Binning
from ldsnn_compiler.events.recordings import Column, Events, read, refused
from ldsnn_compiler.ir.graph import Graph, Node

MOST_PROBLEMS = 8
"""That are told of a batch of recordings: a wrong setting makes one for each."""


@dataclass(frozen=True)
class Framing:
    """Frames of a network's input: their ``shape`` as the network takes them and the ``sensor``'s, nanoseconds of a
    ``step``, number of ``steps`` in the window."""

    shape: tuple[int, ...]
    sensor: tuple[int, ...]
    step: int
    steps: int
    binning: Binning

    @classmethod
    def of(cls, node: Node, binning: Binning) -> Framing:
        """For an input node."""
        where, stream = node.path or node.name, node.type
        if node["time"] == "static":
            text = "takes one value for the whole run, events need a frame for each timestep"
            raise LdsnnError(Problem(text, where=where, kind="input"))
        step = binning.step * stream.dt
        if step.denominator != 1:
            text = f"steps of {stream.dt} base steps of {binning.dt} are no whole number of nanoseconds"
            raise LdsnnError(Problem(text, where=where, kind="input"))
        return cls.sized(stream.shape, stream.timesteps, int(step), binning, where)

    @classmethod
    def sized(cls, shape: tuple[int, ...], steps: int, step: int, binning: Binning, where: str) -> Framing:
        """For frames of that shape."""
        sensor = binning.sensor or shape
        if len(sensor) not in AXES or prod(sensor) != prod(shape):
            hint = "sensor says the shape of a frame, [P, H, W], [H, W] or [W]"
            text = f"frames of {list(sensor)} do not fit an input of {list(shape)}"
            raise LdsnnError(Problem(text, where=where, kind="input", hint=hint))
        return cls(shape, sensor, step, steps, binning)

    def read(self, recording: Any, where: str) -> Events:
        """A recording for these frames."""
        return read(recording, self.sensor, self.binning, where)

    def steps_of(self, events: Events) -> Column:
        """The step of each event."""
        origin = self.binning.origin
        return (events.t - ((events.first or 0) if origin is None else origin)) // self.step

    def add(self, frames: Tensor, steps: Column, cells: Column) -> None:
        """Put events into zeroed ``frames`` ``[steps, *shape]``, contiguous."""
        at = torch.from_numpy(steps * prod(self.sensor) + cells)
        if self.binning.mode == "presence":
            frames.view(-1)[at] = 1.0
        else:
            frames.view(-1).index_add_(0, at, torch.ones(len(at)))

    def window(self, recordings: Sequence[Any], names: Sequence[str]) -> tuple[Tensor, int]:
        """Frames ``[N, T, *shape]`` of the whole window, and how many events were left out.

        Raises:
            LdsnnError: everything that is wrong with any of the recordings, by their ``names``.
        """
        frames, problems, dropped = torch.zeros((len(recordings), self.steps, *self.shape)), list[Problem](), 0
        for frame, recording, name in zip(frames, recordings, names, strict=True):
            try:
                events = self.read(recording, name)
            except LdsnnError as error:
                problems += error.problems
                continue
            steps = self.steps_of(events)
            inside = (steps >= 0) & (steps < self.steps)
            text = f"the window is {self.steps} timesteps long"
            problems += refused(~inside, steps, text, name, "t", self.binning)
            dropped += events.outside + int((~inside).sum())
            self.add(frame, steps[inside], events.cell[inside])
        if problems:
            more = len(problems) - MOST_PROBLEMS
            rest = [Problem(f"and {more} more like these", kind="events")] if more > 0 else []
            raise LdsnnError([*problems[:MOST_PROBLEMS], *rest])
        return frames, dropped


class HasGraph(Protocol):
    """A compiled network, or an interpreter."""

    @property
    def graph(self) -> Graph: ...


def frames(events: Any, network: Graph | HasGraph, binning: Binning | str) -> Tensor:
    """A recording, or a list of them, as the input of a network: ``compiled(frames(recordings, compiled, "1ms"))``.

    The layout is that of the network's caller, :mod:`ldsnn_compiler.ir.layouts`; ``binning`` may be just its ``dt``.
    Events that are dropped are counted in a warning.

    Raises:
        LdsnnError: the network has several inputs or a static one, or everything that is wrong with the recordings.
    """
    from ldsnn_compiler.evaluate import user_layout

    graph = network if isinstance(network, Graph) else network.graph
    recordings = list(events) if isinstance(events, list | tuple) else [events]
    made, dropped = framing(graph, binning).window(recordings, [f"recording {i}" for i in range(len(recordings))])
    warn_of(dropped)
    check_levels(graph.inputs[0], made)
    return user_layout(graph, made)


def warn_of(dropped: int, where: str = "") -> None:
    """Tell how many events were left out, if any."""
    if dropped:
        text = f"{dropped} events outside the window or the sensor were dropped"
        warnings.warn(f"{where}: {text}" if where else text, stacklevel=3)


def framing(graph: Graph, binning: Binning | str) -> Framing:
    """Frames for the one input of a network."""
    if len(graph.inputs) != 1:
        raise LdsnnError(f"events serve networks of one input, this one has {len(graph.inputs)}")
    return Framing.of(graph.inputs[0], binning if isinstance(binning, Binning) else Binning(binning))


def check_levels(node: Node, made: Tensor) -> None:
    """Frames of an input that is declared as spikes hold no larger counts than it says."""
    levels = node.type.signal.levels
    if levels and made.numel() and made.max() > levels:
        text = f"takes at most {levels} events a step and pixel, found {int(made.max())}"
        raise LdsnnError(Problem(text, where=node.path or node.name, kind="input", hint="mode=presence"))
