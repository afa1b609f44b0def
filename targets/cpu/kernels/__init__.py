"""Fast CPU kernels: pure functions from a frozen description to a TVM PrimFunc."""

from ldsnn_compiler.targets.cpu.kernels.layout import flattened_weights, pack_weights
from ldsnn_compiler.targets.cpu.kernels.region import region
from ldsnn_compiler.targets.cpu.kernels.spec import (
    SYMBOLIC,
    BufferSpec,
    RegionSpec,
    Source,
    Tuning,
    bits_shape,
    buffers,
    weight_shape,
    words,
)

__all__ = [
    "SYMBOLIC",
    "BufferSpec",
    "RegionSpec",
    "Source",
    "Tuning",
    "bits_shape",
    "buffers",
    "flattened_weights",
    "pack_weights",
    "region",
    "weight_shape",
    "words",
]
