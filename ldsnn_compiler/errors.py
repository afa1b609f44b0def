"""Errors that a user can act on: every problem named, all of them at once, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it is, and what to do about it.

    ``where`` is a module path, a node name or ``file:line:column``; ``kind`` is the class or op concerned;
    ``attribute`` the offending attribute; ``hint`` what to do instead.
    """

    message: str
    where: str = ""
    kind: str = ""
    attribute: str = ""
    hint: str = ""

    def __str__(self) -> str:
        subject = self.kind + (f".{self.attribute}" if self.attribute else "")
        head = ": ".join(part for part in (self.where, subject) if part)
        text = f"{head}: {self.message}" if head else self.message
        return f"{text} ({self.hint})" if self.hint else text


class LdsnnError(Exception):
    """Base of every error this package raises on purpose. ``problems`` lists all that was found."""

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ImportRefused(LdsnnError):
    """A model uses something that cannot be imported."""


class VerifyError(LdsnnError):
    """A graph breaks a rule of its stage."""


class ParseError(LdsnnError):
    """A text (``.ldir``, a pipeline) does not follow its grammar."""


class ScheduleError(LdsnnError):
    """A schedule does not fit its graph."""


class BundleError(LdsnnError):
    """A bundle is truncated, edited, foreign, or made for another machine."""
