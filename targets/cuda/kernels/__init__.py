"""Regions on a GPU: pure functions from a frozen description to a TVM PrimFunc over blocks of threads."""

from ldsnn_compiler.targets.cuda.kernels.launch import Launch, launch, tuned
from ldsnn_compiler.targets.cuda.kernels.region import region

__all__ = ["Launch", "launch", "region", "tuned"]
