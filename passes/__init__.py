"""The built-in passes, one file each; importing this package registers them.

The list is written out: a module that fails to import is an error, never a pass that is silently absent.
"""

# `import passes` from the root of a checkout would make second copies of the classes.
if not __name__.startswith("ldsnn_compiler."):
    raise ImportError("import this package as ldsnn_compiler.passes")

from ldsnn_compiler.passes import (
    assign_timesteps,
    canonicalize,
    commute_resample,
    dead_code,
    drop_dead_timesteps,
    fold_batchnorm,
    fold_pool,
    fold_scale,
    fuse_timesteps,
    quantize,
    round_weights,
    select_kernels,
)

__all__ = [
    "assign_timesteps",
    "canonicalize",
    "commute_resample",
    "dead_code",
    "drop_dead_timesteps",
    "fold_batchnorm",
    "fold_pool",
    "fold_scale",
    "fuse_timesteps",
    "quantize",
    "round_weights",
    "select_kernels",
]
