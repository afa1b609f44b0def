"""What kernels cost on a board, as far as choosing between them needs it: nanoseconds on one core, one sample, one
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.targets.boards import Board

#: share of neurons that fire in a step, where nothing was measured
GUESSED_DENSITY = 0.15
_ROW = 16
_WORD = 64


@dataclass(frozen=True)
class Synapses:
    """A convolution or linear layer: ``reads`` pairs of output position and input, each to ``channels`` outputs."""

    reads: int
    channels: int

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Synapses:
        """The synapses of a node, borders counted as if they were inside."""
        weight = graph.tensors[node["weight"].name]
        if node.op.name == "linear":
            return cls(weight.shape[1], weight.shape[0])
        groups, positions = node["groups"], prod(node.type.shape[1:])
        return cls(positions * prod(weight.shape[1:]) * groups, weight.shape[0] // groups)

    def event_ns(self, board: Board, density: float) -> float:
        """Every set bit is found and adds one row of weights per output position that it reaches; every word is looked
        at.
        """
        rows = ceil(self.channels / _ROW)
        return self.reads * (density * (board.cost.spike_ns + rows * board.cost.row_ns) + board.cost.spike_ns / _WORD)

    def dense_ns(self, board: Board) -> float:
        """Every input is multiplied."""
        return self.reads * ceil(self.channels / _ROW) * _ROW * board.cost.multiply_ns


def prefers_events(graph: Graph, node: Node, board: Board, density: float) -> bool:
    """Whether walking spikes is the cheaper way for this layer at that density of its input."""
    synapses = Synapses.of(graph, node)
    return synapses.event_ns(board, density) <= synapses.dense_ns(board)
