"""Running candidates through compiled kernels, which are made once and shared by all candidates of a search.

Candidates differ in a few layers, and weights are arguments: most of their kernels are those of candidates before
them. So no library is built per candidate. Kernels are kept by key and called one after another over plain buffers.
Work is counted from those buffers, on every sample. The interpreter gives the same numbers up to single flips, where
sums are rounded in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Data
from ldsnn_compiler.interp.work import LayerWork
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.pipeline import FOLD, OPTIMISE, parse_pipeline, run_pipeline
from ldsnn_compiler.runtime import data, threads
from ldsnn_compiler.search.evaluate import Engine, InterpreterRunner, Runner
from ldsnn_compiler.search.tally import Tally
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.build import kernel_library, symbols
from ldsnn_compiler.targets.cpu import forms
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Kernel, Plan

UNSCHEDULED = ",".join((*FOLD, "assign-timesteps", *OPTIMISE))
"""What a traced graph is compiled through; a scheduled one has been through it."""
PLACE = "select-kernels,fuse-timesteps"
HEAVY = 1e12
"""Multiply-accumulates of a dense run over all samples from which compiling kernels pays."""

Function = Callable[..., None]


def engine(name: str, graph: Graph, samples: int, target: str = "native") -> Engine:
    """The engine called ``interpreter`` or ``compiled``; ``auto`` takes kernels for networks that are large."""
    if name not in ("auto", "interpreter", "compiled"):
        raise LdsnnError(f"engine is one of auto, interpreter, compiled, not {name!r}")
    if name == "compiled" or (name == "auto" and dense_work(graph) * samples >= HEAVY):
        return CompiledEngine(board(target))
    return InterpreterRunner


def dense_work(graph: Graph) -> float:
    """Multiply-accumulates of one sample if no input of any synapse were zero."""
    return sum(dense_updates(graph, node) for node in graph.nodes)


def dense_updates(graph: Graph, node: Node) -> float:
    """Synaptic updates of a node for one sample if no input of it were zero; 0 of a node without synapses."""
    if node.op.fan_out is None:
        return 0.0
    found = (node.op.fan_out(graph.call(node), i) for i in range(len(node.operands)))
    return node.type.timesteps * sum(float(f.sum()) for f in found if f is not None)


class CompiledEngine:
    """Makes runners that share their kernels, for any ``batch`` (None) or one."""

    name = "compiled"
    in_words = True

    def __init__(self, machine: Board, batch: int | None = None) -> None:
        if missing := machine.missing():
            raise LdsnnError(f"candidates run here, and this machine lacks {', '.join(missing)} of {machine.name}")
        self.board = replace(machine, cores=min(machine.cores, threads.available()))
        self.batch = batch
        self._made: dict[Hashable, Function] = {}

    def __call__(self, graph: Graph, skipped: frozenset[str] = frozenset()) -> Runner:
        return _CompiledRunner(self, graph, skipped)

    @property
    def kernels(self) -> int:
        """Kernels made so far."""
        return len(self._made)

    def functions(self, wanted: Plan) -> Sequence[Function]:
        """The machine code of a plan's kernels, in order; what is new is compiled, all of it at once."""
        names = symbols([wanted])
        new = {k.key: k for k in wanted.kernels if k.key not in self._made}
        if new:
            self._made |= self._compiled({names[key]: kernel for key, kernel in new.items()})
        return [self._made[k.key] for k in wanted.kernels]

    def _compiled(self, kernels: Mapping[str, Kernel]) -> dict[Hashable, Function]:
        library = kernel_library(kernels, self.board, self.batch, self.board.cores).mod
        return {kernel.key: library[name] for name, kernel in kernels.items()}


class _CompiledRunner:
    """One candidate; kernels are asked for when the first batch needs them."""

    def __init__(self, shared: CompiledEngine, graph: Graph, skipped: frozenset[str]) -> None:
        self._shared, self._graph, self._skipped = shared, graph, skipped

    @property
    def work(self) -> Mapping[str, LayerWork]:
        """Work of the samples that were counted."""
        return self._tally.work if self._tally.is_possible else self._interpreter.work

    def __call__(
        self, streams: Mapping[str, Tensor], capture: frozenset[str], count: bool
    ) -> tuple[Data, dict[str, Tensor]]:
        if count and not self._tally.is_possible:
            return self._interpreter(streams, frozenset(), count)
        given = {self._place_of(name): data.to_tvm(x) for name, x in streams.items()}
        samples = streams[self._plan.inputs[0]].shape[1]
        values = self._run(given, samples)
        if count:
            self._tally.add(values, samples)
        words = {name: values.get(self._place_of(name)) for name in capture if self._tally.is_possible}
        captured = {name: data.to_torch(x) for name, x in words.items() if x is not None}
        return tuple(data.to_torch(values[name]).clone() for name in self._plan.outputs), captured

    def _place_of(self, name: str) -> str:
        """The buffer of an input, or of a node's words."""
        return name if name in self._plan.inputs else f"{name}:{forms.BITS}"

    @cached_property
    def _interpreter(self) -> InterpreterRunner:
        return InterpreterRunner(self._graph)

    @cached_property
    def _placed(self) -> Graph:
        text = f"{UNSCHEDULED},{PLACE}" if self._graph.stage == "traced" else PLACE
        return run_pipeline(self._graph.clone(), parse_pipeline(text))

    @cached_property
    def _plan(self) -> Plan:
        return plan(self._placed, self._shared.board, "run")

    @cached_property
    def _tally(self) -> Tally:
        """Of the graph as it was given: a traced one is run optimised, but counted as it stands."""
        is_traced = self._graph.stage == "traced"
        return Tally(self._graph if is_traced else self._placed, self._placed, self._plan, self._skipped)

    @cached_property
    def _functions(self) -> Sequence[Function]:
        return self._shared.functions(self._plan)

    @cached_property
    def _arguments(self) -> Mapping[str, Any]:
        return {name: data.to_tvm(self._plan.arguments[name]()) for name in self._plan.used_arguments()}

    def _run(self, given: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """All buffers after a run from those that are ``given``; kernels that nothing needs are left out."""
        import tvm

        buffers, values = self._plan.buffers, {**self._arguments, **given}
        threads.use(self._shared.board.cores)
        for kernel, function in self._needed(frozenset(given)):
            for name in kernel.results:
                values[name] = tvm.runtime.empty(buffers[name].sized(samples), buffers[name].dtype)
            function(*(values[name] for name in (*kernel.operands, *kernel.results)))
        return values

    def _needed(self, given: frozenset[str]) -> list[tuple[Kernel, Function]]:
        wanted, found = set(self._plan.outputs), []
        for kernel, function in reversed(list(zip(self._plan.kernels, self._functions, strict=True))):
            if not wanted.isdisjoint(set(kernel.results) - given):
                wanted |= set(kernel.operands)
                found.append((kernel, function))
        return found[::-1]
