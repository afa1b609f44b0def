"""How long a region or a pool takes, roughly: whether it is worth more than one thread.

Waking the other threads and waiting for the last of them takes one to three microseconds, on a machine with nothing
else to do. Figures are nanoseconds on one core of 3 GHz, of vectors as the kernels use them; they need to be right
within a factor of two.
"""

from __future__ import annotations

from math import ceil

from ldsnn_compiler.targets.cpu.kernels.spec import RegionSpec, Source
from ldsnn_compiler.targets.cpu.kernels.task import steps, summed

#: less work than this is done by the thread that is there
LEAST_NS = 3500.0
#: share of inputs that are events, binary ones and counts
_DENSITY, _COUNTED = 0.15, 0.25
#: one vector multiplied and added; the events of a pixel looked for, and one found; one vector added for it; one
#: operation of a neuron's program
_MULTIPLY_NS, _LOOK_NS, _FIND_NS, _ADD_NS, _OPERATION_NS = 0.5, 3.0, 0.8, 0.2, 0.3


def worth_threads(ns_per_sample: float, batch: int | None) -> bool:
    """Whether that much work for each sample is dealt out; a batch that is not known yet always is."""
    return batch is None or ns_per_sample * batch >= LEAST_NS


def region_ns(spec: RegionSpec) -> float:
    """Of one sample on one core."""
    vectors = spec.pixels * spec.timesteps * ceil(spec.channels / spec.lanes)
    program = len(spec.neuron.program.steps) * spec.neuron.substeps if spec.neuron else 0
    return sum(_source_ns(spec, source) for source in spec.sources) + vectors * (1 + program) * _OPERATION_NS


def _source_ns(spec: RegionSpec, source: Source) -> float:
    given = spec.pixels * steps(spec, source)
    if source.kind != "conv":
        return given * summed(spec, source) * ceil(spec.channels / spec.lanes) * _ADD_NS
    _, lanes = spec.sums(source)
    rows, wide = source.channels // source.groups, ceil(spec.channels / lanes)
    if spec.walks_bits(source):
        pixels = given * summed(spec, source) * source.taps
        found = pixels * rows * (_COUNTED if source.planes > 1 else _DENSITY)
        return pixels * _LOOK_NS + found * (_FIND_NS + wide * _ADD_NS)
    dot = spec.dot(source)
    return given * source.taps * ceil(rows / (dot.group if dot else 1)) * wide * _MULTIPLY_NS
