"""The Neuromorphic Intermediate Representation (NIR; Pedersen et al., Nature Communications 15, 2024): files in and
out."""

from ldsnn_compiler.frontend.nir.reader import Imported, import_nir, read_nir
from ldsnn_compiler.frontend.nir.writer import Exported, export_nir, write_nir

__all__ = ["Exported", "Imported", "export_nir", "import_nir", "read_nir", "write_nir"]
