"""What layers cost on tensor cores and event by event, by batch: which of the two ``select-kernels`` takes.

Event-driven, every spike fetches a row of weights for every output position that it reaches, through the cache that
all multiprocessors share: ``batch * T * positions * inputs * density * channels * bytes / l2_gbs``. Samples share
nothing of that.

On tensor cores blocks of ``pairs`` (position, timestep) pairs times 64 channels are dealt out to the multiprocessors,
whole blocks at a time: ``ceil(blocks / multiprocessors)`` turns of ``2 * pairs * 64 * inputs`` operations each, at a
multiprocessor's share of the rate; and every block fetches its weights, ``blocks * inputs * 64 * bytes / l2_gbs``. The
larger of the two counts. A small batch has fewer blocks than there are multiprocessors and gains nothing by it; then
the spikes' rows are fewer bytes than the blocks take time. So events win at small batches, tensor cores at large ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import torch

from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.targets.cuda.gpu import LEAST_CHANNELS, LEAST_INPUTS, PAIRS, Gpu
from ldsnn_compiler.targets.narrow import in_halves

#: share of NVIDIA's rate that is reckoned with: what instructions with operands in registers reach, an estimate
REACHED = 0.5
#: output channels of a block
CHANNELS = 64
_GIGA_PER_US, _TERA_PER_US = 1e3, 1e6


@dataclass(frozen=True)
class Layer:
    """``positions`` of the output in a sample, each with ``inputs`` to ``channels`` outputs, in ``timesteps``;
    ``number_bytes`` of a weight, ``instruction`` of tensor cores that multiplies it, "" if none does."""

    positions: int
    inputs: int
    channels: int
    timesteps: int
    number_bytes: int
    instruction: str = ""

    @classmethod
    def of(cls, graph: Graph, node: Node) -> Layer:
        """A convolution or linear layer."""
        weight, given = graph.tensors[node["weight"].name], node.operands[0].type
        halves = in_halves(weight, given.signal.unit)
        return cls(
            prod(node.type.shape[1:]),
            prod(weight.shape[1:]),
            weight.shape[0],
            min(node.type.timesteps, given.timesteps),
            2 if halves else weight.element_size(),
            _instruction(node, weight, halves),
        )

    def fits(self, gpu: Gpu) -> bool:
        """Whether it can go to the GPU's tensor cores."""
        return bool(self.instruction) and gpu.rate(self.instruction) > 0

    def prefers_events(self, gpu: Gpu, batch: int, density: float) -> bool:
        """Whether a batch takes less time event by event."""
        return self.event_us(gpu, batch, density) <= self.matrix_us(gpu, batch)

    def event_us(self, gpu: Gpu, batch: int, density: float) -> float:
        """Microseconds of a batch event by event."""
        rows = batch * self.timesteps * self.positions * self.inputs * density
        return rows * self.channels * self.number_bytes / (gpu.l2_gbs * _GIGA_PER_US)

    def multiplied_us(self, gpu: Gpu, batch: int) -> float:
        """Microseconds of a batch's multiplications and additions at NVIDIA's rate: nothing is faster."""
        count = batch * self.timesteps * self.positions * self.inputs * self.channels
        return 2 * count / (gpu.rate(self.instruction) * _TERA_PER_US)

    def matrix_us(self, gpu: Gpu, batch: int) -> float:
        """Microseconds of a batch on tensor cores, in the blocks that take least."""
        return min(self._blocks_us(gpu, batch, pairs) for pairs in PAIRS)

    def _blocks_us(self, gpu: Gpu, batch: int, pairs: int) -> float:
        blocks = ceil(batch * self.positions * self.timesteps / pairs) * ceil(self.channels / CHANNELS)
        rate = REACHED * gpu.rate(self.instruction) * _TERA_PER_US / gpu.multiprocessors
        turns = ceil(blocks / gpu.multiprocessors)
        multiplied = turns * 2 * pairs * CHANNELS * self.inputs / rate
        fetched = blocks * self.inputs * CHANNELS * self.number_bytes / (gpu.l2_gbs * _GIGA_PER_US)
        return max(multiplied, fetched)


def _instruction(node: Node, weight: torch.Tensor, halves: bool) -> str:
    """Of tensor cores, for layers of spikes that are wide enough for them."""
    grouped = node.op.name != "linear" and node["groups"] > 1
    is_narrow = weight.shape[0] <= LEAST_CHANNELS or weight.shape[1] < LEAST_INPUTS
    if grouped or is_narrow or not node.operands[0].type.signal.is_bounded:
        return ""
    return "mma-half" if halves else "mma-byte" if weight.dtype == torch.int8 else ""
