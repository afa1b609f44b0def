"""What a pass is: a frozen dataclass whose fields are its options, and whose text parses back.

.. code-block:: python

    @register_pass
    @dataclass(frozen=True)
    class DropSmallWeights(Pass):
        name: ClassVar[str] = "drop-small-weights"
        exact: ClassVar[bool] = False
        below: float = 1e-3

        def run(self, graph: Graph) -> bool: ...

    str(DropSmallWeights(below=0.5)) == "drop-small-weights{below=0.5}"
"""

from __future__ import annotations

import json
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar

from ldsnn_compiler.ir.graph import Graph

#: what an option may be
OPTION_TYPES = (bool, int, float, str, Path)
#: text that needs no quotes
BARE = re.compile(r"[A-Za-z0-9_./~+:@-]+")


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite of a graph.

    ``exact``: it leaves spikes and state as they are, bit for bit where fp32 sums do not round (dyadic weights, ratios
    that are powers of two, no BatchNorm); elsewhere a membrane next to its threshold may fall on the other side of it.
    """

    name: ClassVar[str] = ""
    exact: ClassVar[bool] = False

    @abstractmethod
    def run(self, graph: Graph) -> bool:
        """Rewrite ``graph`` in place; whether it changed. The runner checks the answer."""

    def __str__(self) -> str:
        given = [
            f"{f.name}={option_text(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != _default(f)
        ]
        return self.name + (f"{{{','.join(given)}}}" if given else "")


@dataclass(frozen=True)
class Option:
    """An option of a pass: its type, whether it may be ``none``, its default."""

    name: str
    type: type
    optional: bool
    default: Any

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def __str__(self) -> str:
        kind = self.type.__name__ + (" | none" if self.optional else "")
        return f"{self.name}: {kind}" + ("" if self.required else f" = {option_text(self.default)}")

    def read(self, text: str, quoted: bool) -> object:
        """The value that ``text`` means for this option; ValueError says what was expected."""
        if self.optional and text == "none" and not quoted:
            return None
        if self.type in (str, Path):
            return self.type(text)
        if self.type is bool and text in ("true", "false"):
            return text == "true"
        try:
            if self.type is bool:
                raise ValueError
            return self.type(text)
        except ValueError:
            raise ValueError(f"expected {self}, not {text!r}") from None


@cache
def options(kind: type[Pass]) -> Mapping[str, Option]:
    """The options of a pass by name; TypeError if one is not of :data:`OPTION_TYPES`, alone or with ``| None``."""
    hints = typing.get_type_hints(kind)
    found = {}
    for each in fields(kind):
        hint, optional = hints[each.name], False
        if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
            parts = [p for p in typing.get_args(hint) if p is not NoneType]
            hint, optional = parts[0] if len(parts) == 1 else hint, len(parts) < len(typing.get_args(hint))
        if hint not in OPTION_TYPES:
            known = ", ".join(t.__name__ for t in OPTION_TYPES)
            raise TypeError(f"option {each.name} of pass {kind.name!r} is one of {known}, perhaps | None, not {hint}")
        found[each.name] = Option(each.name, hint, optional, _default(each))
    return found


def option_text(value: object) -> str:
    """An option's value as the pipeline parser reads it; text is quoted where it needs to be."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return text if BARE.fullmatch(text) and text != "none" else json.dumps(text)


def _default(each: Field[Any]) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default
