"""Printing a graph as ``.ldir``: one node a line, readable, and read back by :mod:`ldsnn_compiler.ir.parser`.

.. code-block:: text

    ldir 1
    graph "digits" base_timesteps=32 stage=traced
    tensor @conv1.weight float32[16, 1, 3, 3] sha256:9f86d081884c7d65...
    %x = input() {time="static"} : stream<1, 32, [1, 8, 8], float32, real>
    %conv1 = conv2d(%x) {weight=@conv1.weight, stride=[1, 1]} : stream<...> at "conv1"
    %sn1, %sn1#1 = neuron(%conv1) {neuron=if(), membrane=true} : stream<...>, stream<...> place(event, bits, inside, r1)

Attributes at their default are left out; an attribute of type stream is the result's annotation.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction

import torch

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.op import AttrValue
from ldsnn_compiler.ir.types import Stream

VERSION = 1


def tensor_hash(value: torch.Tensor) -> str:
    """``sha256:`` of dtype, shape and little-endian bytes."""
    digest = hashlib.sha256(f"{_dtype(value)}{list(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def attr_text(value: AttrValue) -> str:
    """An attribute value as the parser reads it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value)
        case tuple():
            return f"[{', '.join(map(str, value))}]"
        case Fraction() if value.denominator == 1:
            return str(value.numerator)
        case float():
            return repr(value)
        case _:
            return str(value)


def node_text(node: Node) -> str:
    """One line for one node."""
    results = ", ".join(f"%{r.name}" for r in node.results)
    operands = ", ".join(f"%{o.name}" for o in node.operands)
    shown = [
        f"{name}={attr_text(node[name])}"
        for name, attr in node.op.attrs.items()
        if attr.type is not Stream and node[name] != attr.default
    ]
    line = f"{results} = {node.op.name}({operands})"
    line += f" {{{', '.join(shown)}}}" if shown else ""
    line += f" : {', '.join(str(r.type) for r in node.results)}"
    line += f" {node.placement}" if node.placement else ""
    return line + (f" at {json.dumps(node.path)}" if node.path else "")


def graph_text(graph: Graph, hashes: bool = True) -> str:
    """The whole graph. Without ``hashes`` (for dumps that people compare by eye) tensors show only type and shape."""
    lines = [
        f"ldir {VERSION}",
        f"graph {json.dumps(graph.name)} base_timesteps={graph.base_timesteps} stage={graph.stage}",
    ]
    for name, value in sorted(graph.tensors.items()):
        shape = ", ".join(map(str, value.shape))
        lines.append(f"tensor @{name} {_dtype(value)}[{shape}]" + (f" {tensor_hash(value)}" if hashes else ""))
    return "\n".join(lines + [node_text(n) for n in graph.nodes]) + "\n"
