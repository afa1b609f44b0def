"""A compiled network: a callable in the user's layout, with explicit state, profiling, and a form on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime import data
from ldsnn_compiler.runtime.device import Device, here
from ldsnn_compiler.runtime.interface import Interface, Port
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.network import Network
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


class Compiled(Streaming, Network[torch.Tensor]):
    """A network compiled for a board, over PyTorch tensors; see :class:`~ldsnn_compiler.runtime.network.Network`.

    Inputs may be numpy arrays too.
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
        self.device: Device = device or here(settings.board)
        self.report: dict[str, Any] = dict(report or {})
        self.plans: dict[str, Plan] = {entry: plan(graph, settings.board, entry, settings.tunings) for entry in ENTRIES}
        self.interface, self.batch = Interface.of(graph, self.plans), settings.batch
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

    def _run(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        owned = {x.data_ptr() for x in inputs}
        # an output that only renumbers an input is a view of the caller's memory
        return tuple(y.clone() if y.data_ptr() in owned else y for y in super()._run(inputs))

    def bound(self, *inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        """The library's function and all its arguments for a whole run, for timing without Python around it."""
        full = self._all_given(inputs)
        self._check(full, [port.timesteps for port in self.interface.inputs], self.batch)
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
        super().reset(batch)

    # ---- more

    def profile(self, *inputs: Any, repeats: int = 10) -> Profile:
        """Time per region, and spikes, densities and work per layer, for data ``inputs`` in the user's layout."""
        return profile(self, self._whole(inputs), repeats)

    def save(self, path: str | Path) -> None:
        """Write a bundle: a folder with the graph, its weights, the library, a manifest of hashes and the report."""
        from ldsnn_compiler.runtime.bundle import save

        save(self, Path(path))

    # ---- inside

    def _given(self, x: Any, port: Port) -> torch.Tensor:
        return data.as_tensor(x, port.where)

    def _put(self, x: torch.Tensor) -> Any:
        return self.device.put(x)

    def _get(self, x: Any) -> torch.Tensor:
        return self.device.get(x)

    def _own(self, x: torch.Tensor, dtype: str) -> torch.Tensor:
        return x.to(getattr(torch, dtype)).contiguous().clone()

    def _joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(parts))

    def _initial(self, index: int, batch: int) -> torch.Tensor:
        return self.plans["step"].states[index].initial(batch)

    def _counter(self, base_step: int) -> Any:
        return self.device.put(torch.tensor([base_step], dtype=torch.int32))

    def _invoke(self, entry: str, given: Sequence[Any]) -> list[Any]:
        self._ready()
        return list(self._functions[entry](*given, *self._arguments[entry]))

    def _ready(self) -> None:
        if self._missing:
            board = self.settings.board
            raise LdsnnError(f"compiled for {board.name} ({board.cpu}), this machine lacks {', '.join(self._missing)}")
        self.device.use(self.settings.threads)
