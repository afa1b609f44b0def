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

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Data
from ldsnn_compiler.interp.work import LayerWork
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.runtime import data, threads
from ldsnn_compiler.search.evaluate import FOLD, OPTIMISE, Engine, InterpreterRunner, Runner
from ldsnn_compiler.search.tally import Tally
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.build import symbols
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
    total = 0.0
    for node in graph.nodes:
        if node.op.fan_out is not None:
            found = (node.op.fan_out(graph.call(node), i) for i in range(len(node.operands)))
            total += node.type.timesteps * sum(float(f.sum()) for f in found if f is not None)
    return total


class CompiledEngine:
    """Makes runners that share their kernels, for any ``batch`` (None) or one."""

    name = "compiled"

    def __init__(self, machine: Board, batch: int | None = None) -> None:
        if missing := machine.missing():
            raise LdsnnError(f"candidates run here, and this machine lacks {', '.join(missing)} of {machine.name}")
        self.board = replace(machine, cores=min(machine.cores, threads.available()))
        self.batch = batch
        self._made: dict[Hashable, Function] = {}

    def __call__(self, graph: Graph) -> Runner:
        return _CompiledRunner(self, graph)

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
        import tvm

        module = tvm.IRModule(
            {name: k.build(self.batch).with_attr("global_symbol", name) for name, k in kernels.items()}
        )
        library = tvm.compile(module, target=self.board.target(self.board.cores)).mod
        return {kernel.key: library[name] for name, kernel in kernels.items()}


class _CompiledRunner:
    """One candidate; kernels are asked for when the first batch needs them."""

    def __init__(self, shared: CompiledEngine, graph: Graph) -> None:
        self._shared, self._graph = shared, graph

    @property
    def work(self) -> Mapping[str, LayerWork]:
        """Work of the samples that were counted."""
        return self._tally.work if self._tally.is_possible else self._interpreter.work

    def __call__(self, inputs: Data, capture: frozenset[str], count: bool) -> tuple[Data, dict[str, Any]]:
        if capture or (count and not self._tally.is_possible):
            return self._interpreter(inputs, capture, count)
        return self._run(inputs, count), {}

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
        return Tally(self._graph if is_traced else self._placed, self._placed, self._plan)

    @cached_property
    def _functions(self) -> Sequence[Function]:
        return self._shared.functions(self._plan)

    @cached_property
    def _arguments(self) -> Mapping[str, Any]:
        return {name: data.to_tvm(self._plan.arguments[name]()) for name in self._plan.used_arguments()}

    def _run(self, inputs: Data, count: bool) -> Data:
        import tvm

        made, batch = self._plan, inputs[0].shape[1]
        values = {**self._arguments, **dict(zip(made.inputs, map(data.to_tvm, inputs), strict=True))}
        threads.use(self._shared.board.cores)
        for kernel, function in zip(made.kernels, self._functions, strict=True):
            for name in kernel.results:
                buffer = made.buffers[name]
                values[name] = tvm.runtime.empty(buffer.sized(batch), buffer.dtype)
            function(*(values[name] for name in (*kernel.operands, *kernel.results)))
        if count:
            self._tally.add(values, batch)
        return tuple(data.to_torch(values[name]).clone() for name in made.outputs)
