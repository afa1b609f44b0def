"""What a network's library takes and gives, as data: all that running it needs to know, without graph or PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ldsnn_compiler.targets.plan import BATCH, channels_first, channels_last

if TYPE_CHECKING:
    from ldsnn_compiler.ir.graph import Graph, Node
    from ldsnn_compiler.targets.plan import Plan


@dataclass(frozen=True)
class Port:
    """An input or output: ``timesteps`` of a whole run, each of ``dt`` base steps, of samples of ``shape``.

    ``time`` is the caller's layout (:mod:`ldsnn_compiler.ir.layouts`). ``is_running``: it answers once a call, with
    what a readout then holds.
    """

    name: str
    path: str
    time: str
    shape: tuple[int, ...]
    timesteps: int
    dt: Fraction
    is_running: bool = False

    @property
    def where(self) -> str:
        """What the user calls it."""
        return self.path or self.name


@dataclass(frozen=True)
class Held:
    """A state variable: the ``shape`` of its buffer, with :data:`~ldsnn_compiler.targets.plan.BATCH` for the batch.

    ``sample``: the shape ``[C, *space]`` of a sample where the buffer is ``[N, P, C]``.
    """

    node: str
    variable: str
    shape: tuple[int, ...]
    dtype: str
    sample: tuple[int, ...] | None

    @property
    def key(self) -> str:
        """The name of its initial value, for one sample, among a bundle's arguments."""
        return f"{self.node}.{self.variable} before the first step"

    @property
    def axis(self) -> int:
        """The batch axis, of the buffer and of what is shown."""
        return self.shape.index(BATCH)

    def shown(self, batch: int) -> tuple[int, ...]:
        """The shape that the user sees, ``[N, *shape]``, or ``[steps, N, *shape]`` for a delay."""
        shape = self.shape if self.sample is None else (BATCH, *self.sample)
        return tuple(batch if d == BATCH else d for d in shape)

    def pack(self, x: Any) -> Any:
        """From what the user sees to the buffer's layout, torch or numpy."""
        return x if self.sample is None else channels_last(x, self.sample)

    def unpack(self, x: Any) -> Any:
        """The inverse of :meth:`pack`."""
        return x if self.sample is None else channels_first(x, self.sample)


@dataclass(frozen=True)
class Interface:
    """``arguments`` of both entries by name; ``counts``: the entry ``step`` takes the number of base steps done.

    The functions take and return what :class:`~ldsnn_compiler.targets.plan.Plan` says. ``granule``: base steps of one
    call of ``step``.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Held, ...]
    granule: int
    counts: bool
    arguments: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, graph: Graph, plans: Mapping[str, Plan]) -> Interface:
        """Of a lowered graph and its plans."""
        import networkx as nx

        running: set[str] = set().union(*(nx.descendants(graph.dag, n.name) for n in graph.of("readout")))
        step = plans["step"]
        states = (
            Held(s.node, s.variable, step.buffers[s.before].shape, step.buffers[s.before].dtype, s.sample)
            for s in step.states
        )
        return cls(
            tuple(_port(n, False) for n in graph.inputs),
            tuple(_port(n, n.name in running) for n in graph.outputs),
            tuple(states),
            graph.granule,
            bool(step.counter),
            {entry: plan.used_arguments() for entry, plan in plans.items()},
        )

    def steps(self, port: Port) -> int:
        """Timesteps of a port in one granule."""
        return int(self.granule / port.dt)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"inputs": [_plain(p) for p in self.inputs], "outputs": [_plain(p) for p in self.outputs]}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Interface:
        """What :meth:`to_json` made."""
        ports = {kind: tuple(_port_of(p) for p in values[kind]) for kind in ("inputs", "outputs")}
        states = tuple(
            Held(**s | {"shape": tuple(s["shape"]), "sample": None if s["sample"] is None else tuple(s["sample"])})
            for s in values["states"]
        )
        arguments = {entry: tuple(names) for entry, names in values["arguments"].items()}
        return cls(**ports, states=states, granule=values["granule"], counts=values["counts"], arguments=arguments)


def _port(node: Node, is_running: bool) -> Port:
    type = (*node.results, *node.operands)[0].type
    return Port(node.name, node.path, node["time"], tuple(type.shape), type.timesteps, type.dt, is_running)


def _plain(port: Port) -> dict[str, Any]:
    return asdict(port) | {"dt": str(port.dt)}


def _port_of(values: Mapping[str, Any]) -> Port:
    return Port(**{**values, "shape": tuple(values["shape"]), "dt": Fraction(values["dt"])})
