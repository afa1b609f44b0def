"""The state of a node before its first step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.interp.neuron import initial_state
from ldsnn_compiler.ir.graph import Node
from ldsnn_compiler.ir.neuron import TensorRef
from ldsnn_compiler.ir.ops.arithmetic import per_channel

BATCH_AXIS = {"neuron": 0, "delay": 1, "readout": 1}
"""Op that keeps state -> the axis of its variables that is the batch."""


def initial(node: Node, tensors: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Variables before the first step, of the shapes and dtypes of the ``present`` ones; ``tensors`` are the graph's.

    Raises:
        LdsnnError: the op keeps a state of its own kind.
    """
    if node.op.name == "neuron":
        return _of_neuron(node, tensors, next(iter(present.values())))
    if node.op.name not in BATCH_AXIS:
        where = node.path or node.name
        raise LdsnnError(Problem("it is not known how its state begins", where=where, kind=node.op.name))
    fill = float("-inf") if node.op.name == "readout" and node["mode"] == "max" else 0.0
    return {name: value.new_full(value.shape, fill) for name, value in present.items()}


def _of_neuron(node: Node, tensors: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    def value(param: float | TensorRef) -> Tensor:
        if not isinstance(param, TensorRef):
            return like.new_tensor(param)
        return per_channel(tensors[param.name].detach(), like.ndim - 1).to(like)

    params = {name: value(param) for name, param in node["neuron"].params.items()}
    return initial_state(node["neuron"], params, like)
