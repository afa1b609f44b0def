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
    """A convolution or linear layer: ``reads`` pairs of output position and input, each to ``channels`` outputs;
    ``whole``: in whole numbers."""

    reads: int
    channels: int
    whole: bool = False

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Synapses:
        """The synapses of a node, borders counted as if they were inside."""
        weight = graph.tensors[node["weight"].name]
        whole = not weight.is_floating_point()
        if node.op.name == "linear":
            return cls(weight.shape[1], weight.shape[0], whole)
        groups, positions = node["groups"], prod(node.type.shape[1:])
        return cls(positions * prod(weight.shape[1:]) * groups, weight.shape[0] // groups, whole)

    def event_ns(self, board: Board, density: float) -> float:
        """Every set bit is found and adds one row of weights per output position that it reaches; every word is looked
        at.
        """
        cost = board.cost
        row_ns = ceil(self.channels / _ROW) * (cost.whole_row_ns if self.whole else cost.row_ns)
        return self.reads * (density * (cost.spike_ns + row_ns) + cost.spike_ns / _WORD)

    def dense_ns(self, board: Board) -> float:
        """Every input is multiplied."""
        multiply_ns = board.cost.whole_multiply_ns if self.whole else board.cost.multiply_ns
        return self.reads * ceil(self.channels / _ROW) * _ROW * multiply_ns


def prefers_events(graph: Graph, node: Node, board: Board, density: float) -> bool:
    """Whether walking spikes is the cheaper way for this layer at that density of its input."""
    synapses = Synapses.of(graph, node)
    return synapses.event_ns(board, density) <= synapses.dense_ns(board)
