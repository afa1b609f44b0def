"""Calibration of integer mode: which ranges the real inputs of a network take. The ``quantize`` pass applies it.

.. code-block:: json

    {"version": 1, "samples": 500, "inputs": {"x": {"low": 0.0, "high": 1.0}}}

Keys are module paths, or node names where an input has none. Inputs that are events, or that an encoder turns into
events, need no range.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.store import parse_json, read_text, write_atomically

VERSION = 1


@dataclass(frozen=True)
class Range:
    """Least and largest number of an input."""

    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """Ranges of real inputs by module path or node name; ``samples``: how many they were seen on."""

    inputs: Mapping[str, Range] = field(default_factory=dict)
    samples: int = 0
    version: int = VERSION

    @classmethod
    def open(cls, source: str | Path) -> Calibration:
        """A file, or JSON text."""
        text = str(source)
        if text.lstrip().startswith("{"):
            return cls.parse(text)
        return cls.parse(read_text(Path(source)), text)

    @classmethod
    def parse(cls, text: str, where: str = "calibration") -> Calibration:
        """Read JSON text; LdsnnError lists everything that is wrong with it."""
        data = parse_json(text, where)
        if problems := list(_wrong(data, where)):
            raise LdsnnError(problems)
        inputs = {key: Range(float(entry["low"]), float(entry["high"])) for key, entry in data["inputs"].items()}
        return cls(inputs, data["samples"], data["version"])

    def text(self) -> str:
        """JSON, one input a line."""
        entries = ",\n".join(
            f'    {json.dumps(key)}: {{"low": {r.low!r}, "high": {r.high!r}}}' for key, r in self.inputs.items()
        )
        inner = f"\n{entries}\n  " if entries else ""
        return f'{{\n  "version": {self.version},\n  "samples": {self.samples},\n  "inputs": {{{inner}}}\n}}\n'

    def write(self, path: str | Path) -> None:
        """Write the file."""
        write_atomically(Path(path), self.text().encode())

    def misfits(self, graph: Graph) -> list[Problem]:
        """Real inputs of ``graph`` without a range, and ranges of nothing in it."""
        names = {_key(node): node for node in borders(graph)}
        hint = "calibrate it on data (ldsnn_compiler.calibrate, `ldsnn quantize`)"
        missing = [
            Problem("is a real input without a calibrated range", key, node.op.name, hint=hint)
            for key, node in names.items()
            if key not in self.inputs
        ]
        known = {_key(node) for node in graph.inputs} | set(names)
        return missing + [
            Problem("is no real input of the network", key, hint=f"it has {', '.join(sorted(known)) or 'none'}")
            for key in self.inputs
            if key not in known
        ]

    def range_of(self, node: Node) -> tuple[float, float]:
        """Least and largest number of a real input, 0 and 1 where none is known."""
        found = self.inputs.get(_key(node), Range(0.0, 1.0))
        return found.low, found.high


def calibrate(graph: Graph, *inputs: torch.Tensor, percentile: float = 100.0) -> Calibration:
    """Ranges of the real inputs of ``graph`` on samples ``[T, N, *shape]``, one tensor an input.

    ``percentile`` below 100 leaves out that share of the numbers of largest magnitude, which are clipped then.

    Raises:
        LdsnnError: the number of tensors is not that of the inputs, or data are not finite.
    """
    if len(inputs) != len(graph.inputs):
        raise LdsnnError(f"the network takes {len(graph.inputs)} inputs, not {len(inputs)}")
    if not 0 < percentile <= 100:
        raise LdsnnError(Problem(f"is above 0 and up to 100, not {percentile}", attribute="percentile"))
    wanted, ranges = {node.name for node in borders(graph)}, {}
    for node, x in zip(graph.inputs, inputs, strict=True):
        if not bool(torch.isfinite(x).all()):
            raise LdsnnError(Problem("holds NaN or infinity", where=_key(node)))
        if node.name in wanted:
            ranges[_key(node)] = _range(x.flatten(), percentile)
    return Calibration(ranges, max((int(x.shape[1]) for x in inputs), default=0))


def _range(x: torch.Tensor, percentile: float) -> Range:
    low, high = float(x.min()), float(x.max())
    if percentile < 100:
        kept = x.abs().kthvalue(max(1, round(x.numel() * percentile / 100))).values.item()
        low, high = max(low, -kept), min(high, kept)
    return Range(low, max(high, 0.0))


def borders(graph: Graph) -> tuple[Node, ...]:
    """Inputs of real numbers that something else than an encoder reads."""
    return tuple(
        node
        for node in graph.inputs
        if not node.type.signal.is_event
        and any(user.op.name not in ("encode", "output") for user, _ in graph.uses(node.result))
    )


def _key(node: Node) -> str:
    return node.path or node.name


def _wrong(data: Any, where: str) -> Iterator[Problem]:
    if not isinstance(data, dict) or set(data) != {"version", "samples", "inputs"}:
        yield Problem("is an object of version, samples and inputs", where=where)
        return
    if data["version"] != VERSION:
        yield Problem(f"version {data['version']!r} cannot be read, only {VERSION}", where=where)
    if type(data["samples"]) is not int or data["samples"] < 0:
        yield Problem(f"is a number of samples, not {data['samples']!r}", where=where, attribute="samples")
    if not isinstance(data["inputs"], dict):
        yield Problem("is an object of inputs", where=where, attribute="inputs")
        return
    for key, entry in data["inputs"].items():
        ends = list(entry.values()) if isinstance(entry, dict) and list(entry) == ["low", "high"] else []
        good = all(isinstance(e, int | float) and not isinstance(e, bool) and abs(e) < float("inf") for e in ends)
        if len(ends) != 2 or not good or not ends[0] <= ends[1]:
            yield Problem(f"has low and high, finite and in order, not {entry!r}", where=where, attribute=key)


__all__ = ["Calibration", "Range", "borders", "calibrate"]
