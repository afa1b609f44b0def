"""Fast CPU kernels: pure functions from a frozen description to a TVM PrimFunc.

Pools on bits are in :mod:`.pool`; conversions from one form to another are tensor expressions, in
:mod:`ldsnn_compiler.targets.cpu.forms`.
"""

from ldsnn_compiler.targets.cpu.kernels.layout import flattened_weights, pack_weights
from ldsnn_compiler.targets.cpu.kernels.numbers import Number
from ldsnn_compiler.targets.cpu.kernels.region import region
from ldsnn_compiler.targets.cpu.kernels.spec import (
    SYMBOLIC,
    BufferSpec,
    RegionSpec,
    Source,
    Tuning,
    bits_shape,
    buffers,
    count_number,
    weight_number,
    weight_shape,
    words,
)
from ldsnn_compiler.targets.cpu.kernels.tune import tuned

__all__ = [
    "SYMBOLIC",
    "BufferSpec",
    "Number",
    "RegionSpec",
    "Source",
    "Tuning",
    "bits_shape",
    "buffers",
    "count_number",
    "flattened_weights",
    "pack_weights",
    "region",
    "tuned",
    "weight_number",
    "weight_shape",
    "words",
]
