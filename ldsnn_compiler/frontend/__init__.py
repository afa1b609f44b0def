"""Front ends: PyTorch models become graphs."""

from ldsnn_compiler.frontend.conversion import convert
from ldsnn_compiler.frontend.qcfs import QCFS
from ldsnn_compiler.frontend.report import Report, check
from ldsnn_compiler.frontend.tracer import trace

__all__ = ["QCFS", "Report", "check", "convert", "trace"]
