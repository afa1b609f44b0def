"""Front ends: PyTorch models become graphs."""

from ldsnn_compiler.frontend.tracer import trace

__all__ = ["trace"]
