"""Schedules: how many timesteps, levels and which method each neuron layer gets. Made by a search or by hand, applied
by ``assign-timesteps``.

.. code-block:: json

    {"version": 1, "base_timesteps": 64,
     "layers": {"layer1.0.relu1": {"timesteps": 8, "levels": 1, "method": "closed"}}}

Keys are module paths (``path#2`` for a module called again). ``levels``, ``method``, ``range`` and ``input_timesteps``
may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

from ldsnn_compiler.errors import LdsnnError, Problem, ScheduleError
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.neuron import Neuron
from ldsnn_compiler.ir.store import parse_json, read_text, write_atomically

VERSION = 1
METHODS = ("closed", "micro", "oneshot")


@dataclass(frozen=True)
class LayerSchedule:
    """One layer: ``timesteps`` over the whole run, ``levels`` a spike may count to, the retiming ``method``.

    ``range`` is the most that the layer can emit in a step, as a share of what the original could in the same time: of
    k levels, one stands for ``range * r / k`` spikes of the original where a step covers r of its steps. A layer that
    fires seldom keeps finer spikes with a small range; what is above it waits in the membrane.
    """

    timesteps: int
    levels: int = 1
    method: str = "closed"
    range: float = 1.0
    input_timesteps: int | None = None

    @property
    def reads(self) -> int:
        """Timesteps on which the input is read."""
        return self.input_timesteps or self.timesteps

    def to_json(self) -> dict[str, int | float | str]:
        """The entry of a schedule file; a whole range, and input read on the layer's own steps, are not written."""
        entry: dict[str, int | float | str] = {
            "timesteps": self.timesteps, "levels": self.levels, "method": self.method,
        }  # fmt: skip
        if self.range != 1:
            entry["range"] = self.range
        if self.reads != self.timesteps:
            entry["input_timesteps"] = self.reads
        return entry


@dataclass(frozen=True)
class Schedule:
    """Per-layer timesteps of a network whose whole run covers ``base_timesteps`` base steps."""

    base_timesteps: int
    layers: Mapping[str, LayerSchedule]
    version: int = VERSION

    @classmethod
    def uniform(cls, graph: Graph, timesteps: int, levels: int = 1, method: str | None = None) -> Schedule:
        """``timesteps`` in every layer (fewer, in proportion, behind a ``slice_time``).

        The method, unless given, is ``closed`` where the neuron has it, else ``micro``.
        """
        layers = {}
        for path, node in neuron_layers(graph).items():
            steps = timesteps * node.type.duration / graph.base_timesteps
            if steps.denominator != 1:
                raise ScheduleError(Problem(f"{timesteps} timesteps in all would be {steps} here", where=path))
            chosen = method or _method(node["neuron"], node.type.duration / steps / node.type.dt, levels)
            layers[path] = LayerSchedule(int(steps), levels, chosen)
        return cls(graph.base_timesteps, layers)

    @classmethod
    def parse(cls, text: str, where: str = "schedule") -> Schedule:
        """Read JSON text; :class:`ScheduleError` lists everything that is wrong with it."""
        data = parse_json(text, where, ScheduleError)
        if problems := list(_wrong(data, where)):
            raise ScheduleError(problems)
        layers = {path: LayerSchedule(**entry) for path, entry in data["layers"].items()}
        return cls(data["base_timesteps"], layers, data["version"])

    @classmethod
    def read(cls, path: str | Path) -> Schedule:
        """Read a schedule file; :class:`ScheduleError` lists everything that is wrong with it."""
        return cls.parse(read_text(Path(path), ScheduleError), str(path))

    def text(self) -> str:
        """JSON, one layer a line."""
        layers = ",\n".join(f"    {json.dumps(path)}: {json.dumps(e.to_json())}" for path, e in self.layers.items())
        head = f'  "version": {self.version},\n  "base_timesteps": {self.base_timesteps},\n'
        return f'{{\n{head}  "layers": {{\n{layers}\n  }}\n}}\n' if layers else f'{{\n{head}  "layers": {{}}\n}}\n'

    def write(self, path: str | Path) -> None:
        """Write a schedule file."""
        write_atomically(Path(path), self.text().encode())

    def check(self, graph: Graph) -> None:
        """Raise :class:`ScheduleError` with all that does not fit: base steps, unknown or missing layers, timesteps."""
        if problems := list(self._misfits(graph)):
            raise ScheduleError(problems)

    def _misfits(self, graph: Graph) -> Iterator[Problem]:
        if self.base_timesteps != graph.base_timesteps:
            yield Problem(
                f"is for {self.base_timesteps} base timesteps, the network has {graph.base_timesteps}", "schedule"
            )
        known = neuron_layers(graph)
        for path in self.layers.keys() - known.keys():
            yield Problem("the network has no neuron layer of that path", path, hint=_closest(path, known))
        for path, node in known.items():
            if path not in self.layers:
                yield Problem(
                    "the schedule misses this layer", path, hint=_closest(path, self.layers.keys() - known.keys())
                )
            elif self.layers[path].timesteps > node.type.timesteps:
                steps = f"{self.layers[path].timesteps} timesteps are more than its {node.type.timesteps}"
                yield Problem(steps, path, attribute="timesteps")


def neuron_layers(graph: Graph) -> dict[str, Node]:
    """Neuron nodes by the path that schedules use, in graph order; ``path#2`` is the second use of a path."""
    found: dict[str, Node] = {}
    for node in graph.of("neuron"):
        path, n = node.path or node.name, 1
        while path in found:
            n += 1
            path = f"{node.path or node.name}#{n}"
        found[path] = node
    return found


def _method(neuron: Neuron, r: Fraction, levels: int) -> str:
    try:
        neuron.retime(r, levels, "closed")
    except LdsnnError:
        return "micro"
    return "closed"


def _closest(path: str, known: Iterable[str]) -> str:
    close = get_close_matches(path, list(known), 3)
    return f"closest: {', '.join(close)}" if close else ""


def _wrong(data: object, where: str) -> Iterator[Problem]:
    if not isinstance(data, dict):
        yield Problem("a schedule is a JSON object", where)
        return
    if data.get("version") != VERSION:
        yield Problem(f"version {data.get('version')!r} cannot be read, only {VERSION}", where, attribute="version")
    if not _count(data.get("base_timesteps")):
        yield Problem("is a whole number from 1", where, attribute="base_timesteps")
    for key in data.keys() - {"version", "base_timesteps", "layers"}:
        yield Problem(f"unknown key {key!r}", where)
    layers = data.get("layers")
    if not isinstance(layers, dict):
        yield Problem("is an object of module paths", where, attribute="layers")
        return
    for path, entry in layers.items():
        for message in _wrong_entry(entry):
            yield Problem(message, f"{where}: {path}")


def _wrong_entry(entry: object) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield "a layer is an object with timesteps, levels and method"
        return
    for key in entry.keys() - {field.name for field in fields(LayerSchedule)}:
        yield f"unknown key {key!r}"
    steps = entry.get("timesteps")
    reads = entry.get("input_timesteps", 1)
    for key, value in (("timesteps", steps), ("levels", entry.get("levels", 1)), ("input_timesteps", reads)):
        if not _count(value):
            yield f"{key} is a whole number from 1, not {value!r}"
    if _count(steps) and _count(reads) and steps % reads:
        yield f"input_timesteps divides timesteps, which {reads} does not divide {steps}"
    share = entry.get("range", 1.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        yield f"range is a number above 0 and up to 1, not {share!r}"
    if entry.get("method", "closed") not in METHODS:
        yield f"method is one of {', '.join(METHODS)}, not {entry['method']!r}"


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
