"""What an importer works with: emitting ops, naming them, aligning operands in time, and collecting problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import torch
from torch import nn

from ldsnn_compiler.errors import Problem
from ldsnn_compiler.frontend.registry import Tables
from ldsnn_compiler.frontend.traced import BATCH, POISON, SEQUENCE, TIME, Axis, Traced
from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.ir.neuron import TensorRef

ANY_BATCH: Final = 10007
"""The batch size that models see while they are imported: a prime, so that no other size is taken for it."""


class Refused(Exception):
    """Ends one importer; its problem has been recorded and its result becomes :data:`POISON`."""


class TimestepsFound(Exception):
    """The model turned out to run a number of timesteps of its own; the import starts again knowing it."""

    def __init__(self, timesteps: int) -> None:
        super().__init__(timesteps)
        self.timesteps = timesteps


@dataclass(frozen=True)
class Site:
    """Where the import stands: ``path`` unique in the graph, ``module`` the module's own, ``kind`` its class."""

    path: str = ""
    module: str = ""
    kind: str = ""


class Context:
    """One import of one model into ``graph``.

    ``timesteps`` is the number of base steps (None until known), ``batch`` the batch size that the model sees,
    ``rows`` the first axis of an example in which time is folded into the batch, ``notes`` what the user should know
    though it is no problem. ``only_shapes``: the graph is thrown away; sizes in it are asked for before the
    model's loops are understood.
    """

    def __init__(self, tables: Tables, graph: Graph, timesteps: int | None, rows: int | None = None) -> None:
        self.tables, self.graph, self.batch, self.timesteps = tables, graph, ANY_BATCH, timesteps
        self.rows = rows
        self.only_shapes = False
        self.problems: list[Problem] = []
        self.time_problems = 0
        self.notes: list[Problem] = []
        self.site = Site()
        self.stateful: dict[int, str] = {}
        self._paths: Counter[str] = Counter()
        self.call: Callable[..., Any] = _no_call
        """``call(module, path, *operands, **keywords)``: import a module below the present one, as a container does."""

    # ---- problems

    def report(self, message: str, *, attribute: str = "", hint: str = "", time: bool = False) -> None:
        """Record a problem at the present place. ``time``: it lies in where time and batch are, not in the model."""
        problem = Problem(message, self.site.path or "the model", self.site.kind, attribute, hint)
        if problem not in self.problems:
            self.problems.append(problem)
            self.time_problems += time

    def refuse(self, message: str, *, attribute: str = "", hint: str = "", time: bool = False) -> Refused:
        """Record a problem and give the exception to raise."""
        self.report(message, attribute=attribute, hint=hint, time=time)
        return Refused(message)

    def adopt(self, other: Context) -> None:
        """Take over the problems of another import of the same model."""
        new = [p for p in other.problems if p not in self.problems]
        self.problems += new
        self.time_problems += other.time_problems if new else 0

    def note(self, message: str, *, attribute: str = "", hint: str = "") -> None:
        """Record something worth knowing about the present place."""
        note = Problem(message, self.site.path or "the model", self.site.kind, attribute, hint)
        if note not in self.notes:
            self.notes.append(note)

    def as_in_eval(self, module: nn.Module) -> None:
        """Note once that a module which behaves differently in training is imported as in ``eval()``."""
        note = Problem("is in training mode, imported as in eval()", "the model", hint="call model.eval()")
        if module.training and note not in self.notes:
            self.notes.append(note)

    @contextmanager
    def at(self, base: str, module: str, kind: str, *, claim: bool = True) -> Iterator[None]:
        """Stand at a module or function; ``claim`` makes ``base`` a path of its own (``base#2`` when it was taken)."""
        before, nodes = self.site, len(self.graph)
        self.site = Site(self._unique(base) if claim else base, module, kind)
        try:
            yield
        finally:
            self.site = before
            if claim and len(self.graph) == nodes:
                self._paths[base] -= 1

    def once(self, module: nn.Module) -> None:
        """Refuse a stateful module that is called a second time: its state would run on from the first call."""
        if id(module) in self.stateful:
            raise self.refuse(
                f"is called again after {self.stateful[id(module)]}, and keeps the state of that call",
                hint="use a neuron of its own at each place",
            )
        self.stateful[id(module)] = self.site.path

    # ---- operations

    def emit(self, op: str, *operands: Value, part: str = "", **attrs: Any) -> Node:
        """Add a node at the present place; ``part`` names one of several that a place needs."""
        path = self._unique(f"{self.site.path}.{part}") if part else self.site.path
        return self.graph.add(op, operands, path=path, **attrs)

    def layer(self, op: str, x: Traced, *, part: str = "", **attrs: Any) -> Traced:
        """Apply an op to a tensor whose named axes come first, and keep those."""
        return x.like(self.emit(op, x.value, part=part, **attrs).result)

    def tensor(self, attribute: str, value: torch.Tensor) -> TensorRef:
        """Store a module's tensor under its name in the model's state_dict, as float32 on the CPU."""
        if value.dtype != torch.float32:
            self.note(f"is {str(value.dtype).removeprefix('torch.')}, imported as float32", attribute=attribute)
        name = f"{self.site.module}.{attribute}" if self.site.module else attribute
        return self.graph.tensor(name, value.detach().to("cpu", torch.float32))

    def optional(self, attribute: str, value: torch.Tensor | None) -> TensorRef | None:
        """As :meth:`tensor`, None staying None."""
        return None if value is None else self.tensor(attribute, value)

    # ---- time

    def steps(self, timesteps: int) -> int:
        """Say that the model itself runs this many timesteps; everything must agree on it."""
        if self.timesteps is None:
            raise TimestepsFound(timesteps)
        if timesteps != self.timesteps:
            raise self.refuse(
                f"runs {timesteps} timesteps, expected {self.timesteps}",
                attribute="timesteps",
                hint="leave timesteps out for a model that sets them itself",
            )
        return timesteps

    def hold(self, value: Value) -> Value:
        """A value of the whole run, repeated in every timestep."""
        if value.type.timesteps == self.timesteps and value.type.dt == 1:
            return value
        return self.emit("resample", value, part="hold", dt=Fraction(1), mode="repeat").result

    def each_step(self, x: Traced) -> Traced:
        """The view of single-step code: ``[T, N, ...]`` as ``[N, ...]`` of every timestep."""
        if x.stepping:
            return x
        if x.lead[:1] != (TIME,):
            raise self.refuse(f"expects [T, N, ...], got {x}", time=True)
        return x.with_axes(x.axes[1:], stepping=True)

    def collect(self, x: Traced) -> Traced:
        """The inverse of :meth:`each_step`: ``[N, ...]`` of every timestep as ``[T, N, ...]``."""
        return x.with_axes((TIME, *x.axes), stepping=False)

    def aligned(self, tensors: Sequence[Traced]) -> list[Traced]:
        """Tensors that meet in one op: those of the whole run are repeated if another one has timesteps."""
        running = next((t for t in tensors if not t.is_static), None)
        if running is None:
            return list(tensors)
        return [self._like_running(t, running) if t.is_static else t for t in tensors]

    def _like_running(self, x: Traced, running: Traced) -> Traced:
        if running.lead not in (SEQUENCE, (BATCH,)) or x.lead != (BATCH,):
            raise self.refuse(f"cannot combine {x} with {running}", time=True)
        held = replace(x, value=self.hold(x.value))
        return held.with_axes((*running.lead, *x.axes[1:]), stepping=running.stepping)

    def expect(self, x: Any, *leads: tuple[Axis, ...], ndim: Sequence[int] | None = None, hint: str = "") -> Traced:
        """``x`` if its named axes are one of ``leads``, first and in order, with so many axes of its own."""
        if not isinstance(x, Traced):
            raise self.refuse(f"expects a tensor, got {type(x).__name__}")
        if x.lead not in leads or not x.is_canonical:
            wanted = " or ".join("[" + ", ".join([*map(str, lead), "..."]) + "]" for lead in leads)
            raise self.refuse(f"expects {wanted}, got {x}", time=True, hint=hint or _layout_hint(x))
        if ndim is not None and len(x.value.type.shape) not in ndim:
            wanted = " or ".join(map(str, ndim))
            raise self.refuse(f"expects {wanted} axes besides time and batch, got {x}", time=True)
        return x

    def _unique(self, base: str) -> str:
        self._paths[base] += 1
        count = self._paths[base]
        return base if count == 1 else f"{base}#{count}"


def _layout_hint(x: Traced) -> str:
    if TIME in x.axes:
        return "time must be the first axis, the batch the second: give the module step_mode 'm', or flatten them"
    return ""


def _no_call(module: nn.Module, path: str, *operands: Any, **keywords: Any) -> Any:
    return POISON
