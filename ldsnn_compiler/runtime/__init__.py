"""Running compiled networks: :class:`Compiled`, bundles on disk (:func:`load`), and, for boards without PyTorch,
:mod:`~ldsnn_compiler.runtime.light`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.bundle import load as load
    from ldsnn_compiler.runtime.compiled import Compiled as Compiled
    from ldsnn_compiler.runtime.profile import Profile as Profile

__all__ = ["Compiled", "Profile", "load"]

#: public name -> module; loaded on first use, so that a board without PyTorch can import the rest
_PUBLIC = {"Compiled": "compiled", "Profile": "profile", "load": "bundle"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
