"""Fast CPU kernels: pure functions from a frozen description to a TVM PrimFunc."""

from ldsnn_compiler.targets.cpu.kernels.layout import flattened_weights, pack_weights
from ldsnn_compiler.targets.cpu.kernels.pack import pack, to_channels_first, to_channels_last, unpack
from ldsnn_compiler.targets.cpu.kernels.pool import PoolSpec, max_pool, sum_pool
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
from ldsnn_compiler.targets.cpu.kernels.tune import tuned

__all__ = [
    "SYMBOLIC",
    "BufferSpec",
    "PoolSpec",
    "RegionSpec",
    "Source",
    "Tuning",
    "bits_shape",
    "buffers",
    "flattened_weights",
    "max_pool",
    "pack",
    "pack_weights",
    "region",
    "sum_pool",
    "to_channels_first",
    "to_channels_last",
    "tuned",
    "unpack",
    "weight_shape",
    "words",
]
