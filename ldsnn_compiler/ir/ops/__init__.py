"""The built-in ops, grouped by what they are; each file declares a few."""

from ldsnn_compiler.ir.ops import arithmetic, io, neuron, pool, shape, synapse, time

__all__ = ["arithmetic", "io", "neuron", "pool", "shape", "synapse", "time"]
