"""Packets of events into a network, granule by granule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.events.binning import Binning, nanoseconds
from ldsnn_compiler.events.framing import HasGraph, check_levels, framing
from ldsnn_compiler.events.recordings import Column, Events, refused


class Steps(HasGraph, Protocol):
    """What goes on by granules: a compiled network, or an interpreter."""

    base_step: int

    def step(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...


class EventStream:
    """Feeds packets of events to ``network.step()``, a granule as soon as it is complete.

    Events come in the order of time. A granule is complete when every sample of the batch has an event behind it, or
    when :meth:`feed` is told ``until`` when there are no more. Base step 0 of the network begins at ``binning.start``;
    where that is ``first``, the first event of each sample belongs to the network's present step. ``dropped`` counts
    events outside the sensor and those that came too late, where they are not refused.
    """

    def __init__(self, network: Steps, binning: Binning | str, batch: int = 1) -> None:
        self.network, self.batch, self.dropped = network, batch, 0
        self._framing = framing(network.graph, binning)
        granule = network.graph.granule / network.graph.inputs[0].type.dt
        self._steps = int(granule)
        self._origin: list[int | None] = [self._framing.binning.origin] * batch
        self._last: list[int] = [-1] * batch
        empty = np.zeros(0, np.int64)
        self._waiting: list[tuple[Column, Column]] = [(empty, empty)] * batch

    def feed(self, packets: Any, until: float | str | None = None) -> list[tuple[Tensor, ...]]:
        """What the network answers for each granule that is complete now, oldest first.

        ``packets`` is one packet of events, or one for each sample of the batch. ``until``, in the unit of timestamps:
        all events before this time have been given.
        """
        given = list(packets) if isinstance(packets, list | tuple) else [packets]
        if len(given) != self.batch:
            raise LdsnnError(f"expected {self.batch} packets, one for each sample, found {len(given)}")
        read = [self._framing.read(packet, f"packet of sample {i}") for i, packet in enumerate(given)]
        steps = [self._steps_of(i, events) for i, events in enumerate(read)]
        self._refuse_late(steps)
        for i, events in enumerate(read):
            self._take(i, events, steps[i])
        if until is None:
            ends = self._last
        else:
            time = nanoseconds(until, self._framing.binning.unit, "until")
            ends = [(time - (o or 0)) // self._framing.step for o in self._origin]
        return self._advance(min(ends) // self._steps)

    def finish(self) -> list[tuple[Tensor, ...]]:
        """Answers for all granules that have events, as if there were no more."""
        return self._advance(max(self._last) // self._steps + 1)

    def _done(self) -> int:
        return int(self.network.base_step / self.network.graph.inputs[0].type.dt)

    def _steps_of(self, i: int, events: Events) -> Column:
        if self._origin[i] is None and events.first is not None:
            self._origin[i] = events.first - self._done() * self._framing.step
        return (events.t - (self._origin[i] or 0)) // self._framing.step

    def _refuse_late(self, steps: Sequence[Column]) -> None:
        done, problems = self._done(), list[Problem]()
        for i, each in enumerate(steps):
            where, text = f"packet of sample {i}", f"timestep {done} is the next"
            problems += refused(each < done, each, text, where, "t", self._framing.binning)
        if problems:
            raise LdsnnError(problems)

    def _take(self, i: int, events: Events, steps: Column) -> None:
        """Keep events for the steps to come, in order."""
        on_time = steps >= self._done()
        self.dropped += events.outside + int((~on_time).sum())
        both = np.concatenate([self._waiting[i][0], steps[on_time]])
        cells = np.concatenate([self._waiting[i][1], events.cell[on_time]])
        order = np.argsort(both, kind="stable")
        self._waiting[i] = both[order], cells[order]
        self._last[i] = max(self._last[i], int(both.max(initial=-1)))

    def _advance(self, granules: int) -> list[tuple[Tensor, ...]]:
        return [self.network.step(self._granule()) for _ in range(granules - self._done() // self._steps)]

    def _granule(self) -> Tensor:
        """The frames of the next granule, ``[steps, N, *shape]``."""
        first = self._done()
        made = torch.zeros((self.batch, self._steps, *self._framing.shape))
        for i, (steps, cells) in enumerate(self._waiting):
            cut = int(np.searchsorted(steps, first + self._steps))
            self._framing.add(made[i], steps[:cut] - first, cells[:cut])
            self._waiting[i] = steps[cut:], cells[cut:]
        check_levels(self.network.graph.inputs[0], made)
        return made.transpose(0, 1).contiguous()
