"""The built-in ops, grouped by what they are; each file declares a few."""

from ldsnn_compiler.ir.ops import arithmetic, border, io, neuron, pool, shape, synapse, time

__all__ = ["arithmetic", "border", "io", "neuron", "pool", "shape", "synapse", "time"]
