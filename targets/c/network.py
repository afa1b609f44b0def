"""A lowered graph as a C network: object code, weights, the layout of its context, and the calls of both entries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.interface import Interface
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.build import symbols
from ldsnn_compiler.targets.c.memory import ALIGNMENT, aligned
from ldsnn_compiler.targets.c.names import made_name, network_name, parameters
from ldsnn_compiler.targets.c.objects import Objects, compile_functions
from ldsnn_compiler.targets.c.program import Assembly, Entry
from ldsnn_compiler.targets.c.weights import IDENTITY_BYTES, Array, Weights, exactly, repeated_row
from ldsnn_compiler.targets.plan import Buffer, Kernel, Plan

#: bytes of the context in front of the state: the pointer to the weights and two counters, padded
HEADER_BYTES = 64
C_TYPES = {
    "float32": "float", "float64": "double", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t",
    "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
}  # fmt: skip

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Port:
    """An input or output: ``parameter`` is its name in C, ``shape`` ``[T, N, *shape]`` of a run, ``step`` of a step.

    ``joins``: the outputs of all steps, one after the other, are that of a run; else the last step's is.
    """

    name: str
    parameter: str
    dtype: str
    shape: tuple[int, ...]
    step: tuple[int, ...]
    joins: bool = True

    @property
    def c_type(self) -> str:
        """The C type of its numbers."""
        return C_TYPES[self.dtype]


@dataclass(frozen=True)
class Slot:
    """The place of a state variable in the context: bytes from ``offset`` of the state, and what it is at first.

    That is ``row`` bytes at ``initial`` in the weights, the channels of a pixel or all of it, as often as they fit, or
    (None) zeros. ``buffer`` is its name in the plan.
    """

    node: str
    variable: str
    dtype: str
    shape: tuple[int, ...]
    buffer: str
    offset: int
    size: int
    initial: int | None
    row: int


@dataclass(frozen=True)
class Network:
    """Everything that the files of a C bundle are written from."""

    name: str
    graph: Graph
    board: Board
    batch: int
    objects: Objects
    weights: Weights
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: tuple[Slot, ...]
    state_bytes: int
    entries: Mapping[str, Entry]

    @property
    def arena_bytes(self) -> int:
        """Bytes that both entries need for what lives between and in their kernels."""
        return max(e.arena for e in self.entries.values())

    @property
    def context_bytes(self) -> int:
        """Bytes of the context; an array in C has at least one, and one at least a line."""
        return HEADER_BYTES + max(ALIGNMENT, self.state_bytes) + max(ALIGNMENT, self.arena_bytes)

    @property
    def identity(self) -> bytes:
        """What weights must fit: a hash of the object code, the calls, the state, and the layout of the weights."""
        text = repr((self.entries, self.state, self.weights.table()))
        return hashlib.sha256(self.objects.content + text.encode()).digest()[:IDENTITY_BYTES]

    def weights_file(self) -> bytes:
        """The weights, for :func:`NAME_init`."""
        return self.weights.content(self.identity)


def network(
    graph: Graph,
    plans: Mapping[str, Plan],
    board: Board,
    batch: int,
    name: str | None = None,
    progress: Progress | None = None,
) -> Network:
    """Compile the plans of a lowered graph for ``board``, on one core; ``name`` (default: the graph's) begins all C
    names.
    """
    if not graph.inputs:
        raise LdsnnError(Problem("a C bundle is of a network with an input", where=graph.name))
    prefix = made_name(graph.name) if name is None else network_name(name)
    names = {key: f"{prefix}_kernel_{symbol}" for key, symbol in symbols(list(plans.values())).items()}
    objects = compile_functions(_functions(plans.values(), names, batch, progress), board)
    weights = Weights()
    state, state_bytes = _state(plans["step"], weights, batch)
    inputs, outputs = _ports(graph, plans, batch)
    entries = {}
    for entry, each in plans.items():
        known = _known(each, weights, (*inputs, *outputs), {h.buffer: h.offset for h in state})
        entries[entry] = Assembly(each, batch, lambda k: names[k.key], objects.scratch, known).entry()
    return Network(prefix, graph, board, batch, objects, weights, inputs, outputs, state, state_bytes, entries)


def _functions(
    plans: Iterable[Plan], names: Mapping[Hashable, str], batch: int, progress: Progress | None
) -> dict[str, object]:
    kernels: dict[Hashable, Kernel] = {k.key: k for each in plans for k in each.kernels}
    functions = {}
    for done, (key, kernel) in enumerate(kernels.items()):
        if progress:
            progress(kernel.name, done, len(kernels))
        functions[names[key]] = kernel.build(batch)
    return functions


def _known(plan: Plan, weights: Weights, ports: Sequence[Port], state: Mapping[str, int]) -> dict[str, str]:
    """C expressions of the addresses that are there before the first call."""
    known = {name: port.parameter for name, port in zip([*plan.inputs, *plan.outputs], ports, strict=True)}
    known |= {each.before: f"context->state + {state[each.before]}" for each in plan.states}
    if plan.counter:
        known[plan.counter] = f"&context->{'base_step' if plan.entry == 'step' else 'zero'}"
    for name in plan.used_arguments():
        make = partial(_array, plan.arguments[name], plan.buffers[name], name)
        known[name] = f"weights + {weights.add(name, make)}"
    return known


def _array(make: Callable[[], torch.Tensor], buffer: Buffer, name: str, batch: int = 1) -> Array:
    return exactly(make(), buffer, name, batch)


def _same(array: Array) -> Array:
    return array


def _state(step: Plan, weights: Weights, batch: int) -> tuple[tuple[Slot, ...], int]:
    """All state with its place, and the bytes of it."""
    found: list[Slot] = []
    end = 0
    for each in step.states:
        buffer, where = step.buffers[each.before], f"{each.node}.{each.variable}"
        value = exactly(each.pack(each.initial(batch)), buffer, where, batch)
        row = repeated_row(value)
        initial = weights.add(f"initial {where}", partial(_same, row)) if any(row.tobytes()) else None
        place = (each.before, end, value.nbytes)
        found.append(Slot(each.node, each.variable, buffer.dtype, value.shape, *place, initial, row.nbytes))
        end += aligned(value.nbytes)
    return tuple(found), end


def _ports(graph: Graph, plans: Mapping[str, Plan], batch: int) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    known = Interface.of(graph, plans)
    ports = (*known.inputs, *known.outputs)
    names = parameters(port.name for port in ports)
    found = []
    for i, port in enumerate(ports):
        run, step = (p.buffers[[*p.inputs, *p.outputs][i]] for p in (plans["run"], plans["step"]))
        shapes = run.sized(batch), step.sized(batch)
        found.append(Port(port.name, names[port.name], run.dtype, *shapes, not port.is_running))
    return tuple(found[: len(known.inputs)]), tuple(found[len(known.inputs) :])
