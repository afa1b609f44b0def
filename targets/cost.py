"""What kernels cost on a board, as far as choosing between them needs it: nanoseconds on one core, one sample, one
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from ldsnn_compiler.ir.graph import Graph, Node, Value
from ldsnn_compiler.targets.boards import Board

#: share of neurons that fire in a step, where nothing was measured
GUESSED_DENSITY = 0.15
_ROW = 16
_WORD = 64
#: reading a count off its bit planes and multiplying by it, for each plane, in units of finding a spike
_COUNT = 0.75
POOLS = ("avg_pool", "sum_pool", "max_pool", "adaptive_avg_pool")


@dataclass(frozen=True)
class Synapses:
    """A convolution or linear layer: ``reads`` pairs of output position and input, each to ``channels`` outputs;
    ``whole``: in whole numbers; ``planes``: bits of a count that is read, 1 for spikes.

    Pools over space leave that as it was before them: few spikes meet in a window, and a count of 1 costs no more than
    a spike.
    """

    reads: int
    channels: int
    whole: bool = False
    planes: int = 1

    @classmethod
    def of(cls, graph: Graph, node: Node, read: Value) -> Synapses:
        """The synapses of a node that walks the events ``read``, borders counted as if they were inside."""
        weight = graph.tensors[node["weight"].name]
        whole, planes = not weight.is_floating_point(), _planes(read)
        if node.op.name == "linear":
            return cls(weight.shape[1], weight.shape[0], whole, planes)
        groups, positions = node["groups"], prod(node.type.shape[1:])
        return cls(positions * prod(weight.shape[1:]) * groups, weight.shape[0] // groups, whole, planes)

    def event_ns(self, board: Board, density: float) -> float:
        """Every event is found and adds one row of weights, times its count, per output position that it reaches; every
        word is looked at.
        """
        cost = board.cost
        row_ns = ceil(self.channels / _ROW) * (cost.whole_row_ns if self.whole else cost.row_ns)
        find_ns = cost.spike_ns * (1.0 if self.planes == 1 else 1.0 + _COUNT * self.planes)
        return self.reads * (density * (find_ns + row_ns) + cost.spike_ns / _WORD)

    def dense_ns(self, board: Board) -> float:
        """Every input is multiplied."""
        multiply_ns = board.cost.whole_multiply_ns if self.whole else board.cost.multiply_ns
        return self.reads * ceil(self.channels / _ROW) * _ROW * multiply_ns


def _planes(value: Value) -> int:
    """Bits of the counts that are pooled over space."""
    while value.node.op.name in POOLS:
        value = value.node.operands[0]
    return max(1, value.type.signal.planes) if value.type.signal.is_bounded else 1


def prefers_events(graph: Graph, node: Node, read: Value, board: Board, density: float) -> bool:
    """Whether walking the spikes ``read`` is the cheaper way for this layer at that density of them."""
    synapses = Synapses.of(graph, node, read)
    return synapses.event_ns(board, density) <= synapses.dense_ns(board)
