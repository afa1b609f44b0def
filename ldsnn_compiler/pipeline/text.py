"""Pipelines as text: ``canonicalize,assign-timesteps{schedule=s.json},dead-code``.

.. code-block:: text

    pipeline = [pass {"," pass}]          pass  = name ["{" option {"," option} "}"]
    option   = name "=" value             value = bare text of letters, digits and _ . / ~ + : @ -, or a JSON string

``none``, ``true`` and ``false`` are written bare; text that would read as ``none`` is quoted. Blanks between tokens
do not count. The whole text is resolved before any pass runs; problems give the column, all of them at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from ldsnn_compiler.errors import LdsnnError, ParseError, Problem
from ldsnn_compiler.ir.graph import STAGES
from ldsnn_compiler.pipeline.base import BARE, Pass, option_text, options
from ldsnn_compiler.pipeline.registry import passes

#: exact passes before a schedule is applied
FOLD = ("canonicalize", "fold-batchnorm", "fold-scale", "fold-pool")
#: exact passes after it
OPTIMISE = ("commute-resample", "drop-dead-timesteps", "canonicalize", "dead-code")
#: what happens to a graph on its way to code, by the stage from which on it is done
_USUAL = {
    "traced": (*FOLD, "assign-timesteps"),
    "scheduled": (*OPTIMISE, "select-kernels"),
    "placed": ("fuse-timesteps",),
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"[A-Za-z_][\w-]*")


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """The passes that ``text`` names, ready to run; :class:`ParseError` gives ``pipeline:column`` of every problem."""
    reader = _Reader(text)
    found = [] if reader.at_end() else [reader.read_pass()]
    while not reader.at_end():
        reader.expect(",", "',' or the end")
        found.append(reader.read_pass())
    if reader.problems:
        raise ParseError(reader.problems)
    return tuple(each for each in found if each is not None)


def pipeline_text(pipeline: Iterable[Pass]) -> str:
    """The text that :func:`parse_pipeline` reads back as these passes."""
    return ",".join(map(str, pipeline))


def default_pipeline(schedule: str | Path | None = None, stage: str = "traced") -> str:
    """The usual pipeline as text, from a graph of that stage to a fused one; ``schedule`` is a file (or JSON text)."""
    left = [name for at, names in _USUAL.items() if STAGES.index(at) >= STAGES.index(stage) for name in names]
    given = "" if schedule is None else f"{{schedule={option_text(str(schedule))}}}"
    return ",".join(f"{name}{given}" if name == "assign-timesteps" else name for name in left)


class _Reader:
    """A cursor over the text. Syntax errors end the reading; what is unknown or ill-typed is collected."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.known = text, 0, passes()
        self.problems: list[Problem] = []

    def at_end(self) -> bool:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at == len(self.text)

    def skip(self, mark: str) -> bool:
        if not self.at_end() and self.text[self.at] == mark:
            self.at += 1
            return True
        return False

    def expect(self, mark: str, what: str) -> None:
        if not self.skip(mark):
            self.fail(what)

    def fail(self, what: str) -> NoReturn:
        found = "the end" if self.at_end() else repr(self.text[self.at])
        raise ParseError([*self.problems, Problem(f"expected {what}, found {found}", where=self.where(self.at))])

    def take(self, pattern: re.Pattern[str], what: str) -> tuple[str, int]:
        self.at_end()
        start, match = self.at, pattern.match(self.text, self.at)
        if match is None:
            self.fail(what)
        self.at = match.end()
        return match.group(), start

    def where(self, column: int) -> str:
        return f"pipeline:{column + 1}"

    def problem(self, message: str, column: int, hint: str = "") -> None:
        self.problems.append(Problem(message, where=self.where(column), hint=hint))

    def read_pass(self) -> Pass | None:
        name, column = self.take(_NAME, "a pass")
        given = self.read_options()
        kind = self.known.get(name)
        if kind is None:
            self.problem(f"unknown pass {name!r}", column, _nearest(name, self.known))
            return None
        values = self.resolve(kind, given, column)
        try:
            return kind(**values) if values is not None else None
        except (LdsnnError, ValueError, TypeError) as error:
            self.problem(f"{name}: {error}", column)
            return None

    def read_options(self) -> list[tuple[str, int, str, bool, int]]:
        found: list[tuple[str, int, str, bool, int]] = []
        if not self.skip("{"):
            return found
        while not self.skip("}"):
            if found:
                self.expect(",", "',' or '}'")
            name, column = self.take(_NAME, "an option")
            self.expect("=", "'='")
            found.append((name, column, *self.read_value()))
        return found

    def read_value(self) -> tuple[str, bool, int]:
        if not self.at_end() and self.text[self.at] == '"':
            quoted, column = self.take(_STRING, "a closing quote")
            try:
                return json.loads(quoted), True, column
            except ValueError:
                self.problem(f"{quoted} is not a JSON string", column)
                return "", True, column
        text, column = self.take(BARE, "a value")
        return text, False, column

    def resolve(
        self, kind: type[Pass], given: list[tuple[str, int, str, bool, int]], column: int
    ) -> dict[str, object] | None:
        known, values, before = options(kind), {}, len(self.problems)
        for name, at, text, quoted, value_at in given:
            if name not in known:
                self.problem(f"{kind.name} has no option {name!r}", at, _nearest(name, known))
            elif name in values:
                self.problem(f"option {name!r} is given twice", at)
            else:
                try:
                    values[name] = known[name].read(text, quoted)
                except ValueError as error:
                    self.problem(str(error), value_at)
        named = {name for name, *_ in given}
        for option in known.values():
            if option.required and option.name not in named:
                self.problem(f"{kind.name} needs the option {option}", column)
        return values if len(self.problems) == before else None


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known := list(known), 3)
    return f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(known) or 'none'}"
