"""A compiled network: a callable in the user's layout, with explicit state, profiling, and a form on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.layouts import to_caller, to_run
from ldsnn_compiler.runtime import data
from ldsnn_compiler.runtime.device import Device, Host
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.profile import Profile, profile
from ldsnn_compiler.streaming import Streaming
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Plan

if TYPE_CHECKING:
    from ldsnn_compiler.targets.cpu.kernels import Tuning

ENTRIES = ("run", "step")
Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Settings:
    """How a network was compiled. ``batch`` None is symbolic; ``schedule`` is the schedule's JSON text, if one was
    given; ``tunings`` are the measured loop structures, by region, that replace those of the rules of thumb.
    """

    board: Board
    batch: int | None
    threads: int
    numerics: str = "fp32"
    pipeline: str = ""
    schedule: str | None = None
    tunings: Mapping[str, Tuning] = field(default_factory=dict)


class Compiled(Streaming):
    """A network compiled for a board.

    Calling it runs the whole window from the initial state on data in the user's layout: ``[N, *shape]`` for a static
    input, ``[T, N, *shape]`` for a sequence, and those of :mod:`ldsnn_compiler.ir.layouts`; torch or numpy, float32.
    :meth:`run` takes and gives ``[T, N, *shape]``.
    :meth:`step` goes on by granules of ``graph.granule`` base steps and keeps :attr:`state`; it equals one run over
    them.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        library: Library,
        report: Mapping[str, Any] | None = None,
        device: Device | None = None,
    ) -> None:
        """Bundles and the driver call this. Code for another machine can be saved, and run there (:meth:`on`)."""
        self.graph, self.settings, self.library = graph, settings, library
        self.device: Device = device or Host()
        self.report: dict[str, Any] = dict(report or {})
        self.plans: dict[str, Plan] = {entry: plan(graph, settings.board, entry, settings.tunings) for entry in ENTRIES}
        self._missing = self.device.missing(settings.board)
        self._arguments: dict[str, tuple[Any, ...]] = {}
        self._functions: dict[str, Any] = {}
        if not self._missing:
            self._link()
        self.reset()

    def _link(self) -> None:
        """Make the arguments and find the functions."""
        self.module = self.device.load(self.library)
        self.vm, functions = self.device.machine(self.module, ENTRIES)
        made: dict[str, Any] = {}
        for entry, each in self.plans.items():
            names = each.used_arguments()
            made.update({k: self.device.put(each.arguments[k]()) for k in names if k not in made})
            self._arguments[entry] = tuple(made[k] for k in names)
            self._functions[entry] = functions[entry]

    def on(self, device: Device) -> Compiled:
        """The same network on another device, in its initial state."""
        return Compiled(self.graph, self.settings, self.library, self.report, device)

    # ---- running

    def __call__(self, *inputs: Any) -> torch.Tensor | Tensors:
        """The whole window, in the user's layout; one output or a tuple. Leaves the streaming state alone."""
        data.check_count(self.graph.inputs, inputs)
        given = [data.as_tensor(x, n) for x, n in zip(inputs, self.graph.inputs, strict=True)]
        full = [to_run(n, x) for x, n in zip(given, self.graph.inputs, strict=True)]
        outputs = self._run(full)
        shown = [to_caller(n, y) for n, y in zip(self.graph.outputs, outputs, strict=True)]
        return shown[0] if len(shown) == 1 else tuple(shown)

    def run(self, *inputs: Any) -> Tensors:
        """The whole window from the initial state: ``[T, N, *shape]`` in, a tuple of ``[T, N, *shape]`` out."""
        data.check_count(self.graph.inputs, inputs)
        return self._run([data.as_tensor(x, n) for x, n in zip(inputs, self.graph.inputs, strict=True)])

    def _run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        self._check(inputs, [n.type.timesteps for n in self.graph.inputs])
        owned = {x.data_ptr() for x in inputs}
        outputs = [self.device.get(y) for y in self._invoke("run", [self.device.put(x) for x in inputs])]
        # an output that only renumbers an input is a view of the caller's memory
        return tuple(y.clone() if y.data_ptr() in owned else y for y in outputs)

    def bound(self, *inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        """The library's function and all its arguments for a whole run, for timing without Python around it."""
        full = [data.as_tensor(x, n) for x, n in zip(inputs, self.graph.inputs, strict=True)]
        self._check(full, [n.type.timesteps for n in self.graph.inputs])
        self._ready()
        return self._functions["run"], (*map(self.device.put, full), *self._arguments["run"])

    # ---- streaming

    def reset(self, batch: int | None = None, *, samples: Sequence[int] | None = None) -> None:
        """Back to the state before the first step. The batch is free again where it was compiled symbolic.

        With ``samples`` only these of the batch, by number; the others go on.
        """
        if samples is not None:
            self._reset_samples(samples)
            return
        if batch is not None and self.settings.batch not in (None, batch):
            raise LdsnnError(f"compiled for batch {self.settings.batch}, found {batch}")
        self.base_step = 0
        self._batch = batch if batch is not None else self.settings.batch
        self._state: list[Any] = []

    def step(self, *inputs: Any) -> Tensors:
        """Go on by one granule or several: ``[steps, N, *shape]`` in and out, as many steps as the granules have.

        A readout gives its running value, once a call.
        """
        nodes, granule = self.graph.inputs, self._granule
        data.check_count(nodes, inputs)
        given = [data.as_tensor(x, n) for x, n in zip(inputs, nodes, strict=True)]
        count = self._granules(given)
        each = [int(granule / n.type.dt) for n in nodes]
        self._check(given, [count * steps for steps in each], self._batch)
        self._begin(data.one_batch(given, nodes))
        answers = [self._one([x[k * s : (k + 1) * s] for x, s in zip(given, each, strict=True)]) for k in range(count)]
        return tuple(
            parts[-1] if node.name in self._after_readout else torch.cat(parts)
            for node, *parts in zip(self.graph.outputs, *answers, strict=True)
        )

    @property
    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Node to variable to value ``[N, *shape]`` (a delay's buffer ``[steps, N, *shape]``); empty before the first
        step.

        Setting it starts the count of base steps anew; to go on in the middle of a run, set :attr:`base_step` after it.
        """
        found: dict[str, dict[str, torch.Tensor]] = {}
        for spec, value in zip(self.plans["step"].states, self._state, strict=bool(self._state)):
            found.setdefault(spec.node, {})[spec.variable] = spec.unpack(self.device.get(value)).clone()
        return found

    @state.setter
    def state(self, values: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        if not values:
            self._state = []
            return
        states = self.plans["step"].states
        known = {(s.node, s.variable) for s in states}
        given = {(node, k): v for node, variables in values.items() for k, v in variables.items()}
        problems = [Problem("no such state", where=n, attribute=k) for n, k in sorted(given.keys() - known)]
        problems += [Problem("this state is missing", where=n, attribute=k) for n, k in sorted(known - given.keys())]
        axes = {key: 1 if key[1] in ("held", "kept") else 0 for key in given}
        batches = {v.shape[axes[key]] for key, v in given.items() if v.ndim > axes[key]}
        batch = batches.pop() if len(batches) == 1 else 1
        for spec in states:
            value = given.get((spec.node, spec.variable))
            wanted = list(spec.initial(batch).shape)
            if value is not None and list(value.shape) != wanted:
                text = f"expected shape {wanted}, found {list(value.shape)}"
                problems.append(Problem(text, where=spec.node, attribute=spec.variable))
        if problems:
            raise LdsnnError(problems)
        self.reset(batch)
        self._state = [self._packed(s, given[s.node, s.variable]) for s in states]

    def _begin(self, batch: int) -> None:
        self._batch = batch
        if not self._state:
            self._state = [self._packed(s, s.initial(batch)) for s in self.plans["step"].states]

    def _packed(self, spec: Any, value: torch.Tensor) -> Any:
        return self.device.put(spec.pack(value.to(torch.float32)).contiguous().clone())

    def _one(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        step = self.plans["step"]
        put, get = self.device.put, self.device.get
        counter = [put(torch.tensor([self.base_step], dtype=torch.int32))] if step.counter else []
        # copies: what is kept from here on may be a view of them
        results = self._invoke("step", [*(put(x.clone()) for x in inputs), *self._state, *counter])
        self._state = results[len(step.outputs) :]
        self.base_step += self._granule
        return tuple(get(y) for y in results[: len(step.outputs)])

    def _granules(self, inputs: Sequence[torch.Tensor]) -> int:
        granule = self._granule
        if not inputs:
            return 1
        covered = self.graph.inputs[0].type.dt * (inputs[0].shape[0] if inputs[0].ndim else 0)
        if covered == 0 or covered % granule:
            raise LdsnnError(f"expected a multiple of {granule} base steps (the granule), found {covered}")
        return int(covered / granule)

    @cached_property
    def _granule(self) -> int:
        return self.graph.granule

    @cached_property
    def _after_readout(self) -> frozenset[str]:
        """Nodes that answer once a call, with what a readout then holds."""
        return frozenset().union(*(nx.descendants(self.graph.dag, n.name) for n in self.graph.of("readout")))

    # ---- more

    def profile(self, *inputs: Any, repeats: int = 10) -> Profile:
        """Time per region, and spikes, densities and work per layer, for data ``inputs`` in the user's layout."""
        data.check_count(self.graph.inputs, inputs)
        given = [data.as_tensor(x, n) for x, n in zip(inputs, self.graph.inputs, strict=True)]
        full = [to_run(n, x) for x, n in zip(given, self.graph.inputs, strict=True)]
        return profile(self, full, repeats)

    def save(self, path: str | Path) -> None:
        """Write a bundle: a folder with the graph, its weights, the library, a manifest of hashes and the report."""
        from ldsnn_compiler.runtime.bundle import save

        save(self, Path(path))

    # ---- inside

    def _check(self, inputs: Sequence[torch.Tensor], steps: Sequence[int], batch: int | None = None) -> None:
        batch = self.settings.batch if batch is None else batch
        for node, x, count in zip(self.graph.inputs, inputs, steps, strict=True):
            data.check(node, x, count, batch)
        data.one_batch(inputs, self.graph.inputs)

    def _invoke(self, entry: str, given: Sequence[Any]) -> list[Any]:
        self._ready()
        return list(self._functions[entry](*given, *self._arguments[entry]))

    def _ready(self) -> None:
        if self._missing:
            board = self.settings.board
            raise LdsnnError(f"compiled for {board.name} ({board.cpu}), this machine lacks {', '.join(self._missing)}")
        self.device.use(self.settings.threads)
