"""State between steps, for compiled networks and interpreters alike: saved, loaded, reset for single samples.

A state file is a safetensors file of ``<node>.<variable>`` tensors, as :attr:`Stateful.state` shows them; its metadata
hold the base step and the hash of the graph that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.initial import BATCH_AXIS, initial
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.store import read_file, write_atomically
from ldsnn_compiler.ir.text import graph_text

FORMAT = "ldsnn state 1"
State = dict[str, dict[str, Tensor]]


class Stateful(Protocol):
    """What runs a graph step by step."""

    graph: Graph
    base_step: int

    @property
    def state(self) -> State: ...

    @state.setter
    def state(self, values: Any) -> None: ...

    def reset(self) -> None: ...

    def _tensors(self) -> Mapping[str, Tensor]: ...


class Streaming:
    """The methods of a :class:`Stateful` network."""

    def _tensors(self: Stateful) -> Mapping[str, Tensor]:
        return self.graph.tensors

    def save_state(self: Stateful, path: str | Path) -> None:
        """Write the state and the base step to a file, whole or not at all."""
        tensors = {
            f"{node}.{variable}": value.detach().contiguous().clone()
            for node, variables in self.state.items()
            for variable, value in variables.items()
        }
        told = {"format": FORMAT, "graph": graph_hash(self.graph), "base_step": str(self.base_step)}
        write_atomically(Path(path), save(tensors, told))

    def load_state(self: Stateful, path: str | Path) -> None:
        """Go on from a file that :meth:`save_state` wrote.

        Raises:
            LdsnnError: the file is none of these, or of another network; the state is then as it was.
        """
        tensors, told = _read(Path(path))
        if told["graph"] != graph_hash(self.graph):
            text = "is the state of another network, or of this one scheduled or compiled in another way"
            raise LdsnnError(Problem(text, where=str(path)))
        state = _by_node(self.graph, tensors, str(path))
        if state:
            self.state = state
        else:
            self.reset()
        self.base_step = int(told["base_step"])

    def _reset_samples(self: Stateful, samples: Sequence[int]) -> None:
        """State of these samples of the batch as before the first step; that of the others stays."""
        state, nodes, at = self.state, {n.name: n for n in self.graph.nodes}, self.base_step
        if at:
            _refuse_counters(self.graph)
        for name, variables in state.items():
            if not variables:
                continue
            node = nodes[name]
            axis = BATCH_AXIS.get(node.op.name, 0)
            chosen = _chosen(samples, next(iter(variables.values())).shape[axis])
            present = {k: v.index_select(axis, chosen) for k, v in variables.items()}
            fresh = initial(node, self._tensors(), present)
            variables.update({k: v.index_copy(axis, chosen, fresh[k]) for k, v in variables.items()})
        self.state = state
        self.base_step = at


def graph_hash(graph: Graph) -> str:
    """Of the graph as text and the weights that it uses."""
    used = graph.clone()
    used.prune_tensors()
    return hashlib.sha256(graph_text(used).encode()).hexdigest()


def _chosen(samples: Sequence[int], batch: int) -> Tensor:
    wrong = [str(i) for i in samples if not 0 <= i < batch]
    if wrong:
        raise LdsnnError(f"the batch has samples 0 to {batch - 1}, not {', '.join(wrong)}")
    return torch.tensor(sorted(set(samples)), dtype=torch.int64)


def _refuse_counters(graph: Graph) -> None:
    """Samples share the count of steps, so nothing that goes by it can begin anew for some of them."""
    hint = "reset all samples, or leave it out of the network"
    problems = [
        Problem("counts the steps since the start, for all samples", where=n.path or n.name, kind=n.op.name, hint=hint)
        for n in graph.nodes
        if _counts(n)
    ]
    if problems:
        raise LdsnnError(problems)


def _counts(node: Node) -> bool:
    if node.op.name == "readout":
        return bool(node["mode"] == "mean")
    if node.op.name == "constant":
        return node.type.timesteps > 1
    return node.op.name == "slice_time" or (node.op.kind == "scan" and node.op.name not in BATCH_AXIS)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    data = read_file(path)
    try:
        tensors = load(data)
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise LdsnnError(Problem(f"not a safetensors file: {error}", where=str(path))) from None
    if told.get("format") != FORMAT or not told.get("base_step", "").isdigit():
        raise LdsnnError(Problem("is no state of a network", where=str(path)))
    return tensors, told


def _by_node(graph: Graph, tensors: Mapping[str, Tensor], where: str) -> State:
    nodes, found, problems = {n.name: n for n in graph.nodes}, dict[str, dict[str, Tensor]](), list[Problem]()
    for name, value in tensors.items():
        node, _, variable = name.rpartition(".")
        axis = BATCH_AXIS.get(nodes[node].op.name, 0) if node in nodes else 0
        if node not in nodes or tuple(value.shape[axis + 1 :]) != nodes[node].type.shape:
            problems.append(Problem(f"holds {name} of shape {list(value.shape)}, which does not fit", where=where))
        found.setdefault(node, {})[variable] = value
    if problems:
        raise LdsnnError(problems)
    return found
