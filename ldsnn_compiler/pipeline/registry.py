"""The passes by name: the built-in ones, those of installed plug-ins and those of loaded files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.pipeline.base import Pass, options

P = TypeVar("P", bound=Pass)
_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PASSES: dict[str, type[Pass]] = {}


def register_pass(kind: type[P]) -> type[P]:
    """Make a pass known by its ``name``; usable as a decorator above ``@dataclass(frozen=True)``.

    Raises LdsnnError if the name is taken, or if the class is not a frozen dataclass with a kebab-case name, its own
    ``exact`` and options that have a text form.
    """
    where = f"{kind.__module__}.{kind.__qualname__}"
    problems = [Problem(message, where=where) for message in _wrong(kind)]
    known = _PASSES.get(kind.name)
    if known is not None and known is not kind:
        taken = f"{known.__module__}.{known.__qualname__}"
        problems.append(Problem(f"a pass named {kind.name!r} is registered already, by {taken}", where=where))
    if problems:
        raise LdsnnError(problems)
    _PASSES[kind.name] = kind
    return kind


def passes() -> Mapping[str, type[Pass]]:
    """All passes by name. Loads the built-in ones and installed plug-ins on the first call."""
    import ldsnn_compiler.passes  # noqa: F401  (registers the built-in ones)
    from ldsnn_compiler.pipeline.plugins import load_entry_points

    load_entry_points("ldsnn_compiler.passes")
    return dict(sorted(_PASSES.items()))


def _wrong(kind: type[Pass]) -> list[str]:
    found = []
    if not _KEBAB.fullmatch(kind.name):
        found.append(f"a pass has a kebab-case name, not {kind.name!r}")
    if "exact" not in vars(kind):
        found.append("a pass declares whether it is exact")
    if "__dataclass_params__" not in vars(kind) or not vars(kind)["__dataclass_params__"].frozen:
        return [*found, "a pass is a frozen dataclass"]
    try:
        options(kind)
    except TypeError as error:
        found.append(str(error))
    return found
