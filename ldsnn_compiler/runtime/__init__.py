"""Running compiled networks: :class:`Compiled`, and bundles on disk (:func:`load`)."""

from ldsnn_compiler.runtime.bundle import load
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.runtime.profile import Profile

__all__ = ["Compiled", "Profile", "load"]
