"""The Neuromorphic Intermediate Representation (NIR, Pedersen et al., Nature Communications 15, 2024) as a source."""

from ldsnn_compiler.frontend.nir.reader import Imported, import_nir, read_nir

__all__ = ["Imported", "import_nir", "read_nir"]
