"""How events become frames, and durations as whole nanoseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ldsnn_compiler.errors import LdsnnError, Problem

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
"""Nanoseconds."""
AXES = {1: "x", 2: "yx", 3: "pyx"}
"""Number of axes of a frame -> the fields that index it."""
_DURATION = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*")


@dataclass(frozen=True)
class Binning:
    """How events become frames.

    ``dt``       length of a base step: text such as ``"1ms"``, or a number in ``unit``
    ``unit``     of timestamps: ns, us, ms or s
    ``start``    the time, in ``unit``, at which base step 0 begins, or ``"first"``: at each recording's first event
    ``mode``     ``count``: the number of events; ``presence``: 1 where there was any
    ``outside``  events outside the window or the sensor: ``refuse`` them, or ``drop`` them and tell how many
    ``sensor``   the frame's shape, where the network's input is that frame with its axes flattened
    """

    dt: str | float
    unit: str = "us"
    start: str | float = 0
    mode: str = "count"
    outside: str = "refuse"
    sensor: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        choices = {"unit": tuple(UNITS), "mode": ("count", "presence"), "outside": ("refuse", "drop")}
        problems = [
            Problem(f"expected one of {', '.join(known)}, not {getattr(self, name)!r}", kind="events", attribute=name)
            for name, known in choices.items()
            if getattr(self, name) not in known
        ]
        if self.sensor is not None and (len(self.sensor) not in AXES or any(d < 1 for d in self.sensor)):
            text = f"expected [P, H, W], [H, W] or [W], not {list(self.sensor)}"
            problems.append(Problem(text, kind="events", attribute="sensor"))
        if problems:
            raise LdsnnError(problems)
        if self.step <= 0:
            raise LdsnnError(Problem(f"a timestep is longer than {self.dt}", kind="events", attribute="dt"))

    @property
    def step(self) -> int:
        """Nanoseconds of a base step."""
        return nanoseconds(self.dt, self.unit, "dt")

    @property
    def origin(self) -> int | None:
        """Nanoseconds at which base step 0 begins; None: at a recording's first event."""
        return None if self.start == "first" else nanoseconds(self.start, self.unit, "start")


def nanoseconds(value: str | float, unit: str, name: str) -> int:
    """A duration as a whole number of nanoseconds; ``unit`` is that of a bare number, ``name`` what errors call it."""
    found = _DURATION.fullmatch(str(value).lstrip("-"))
    try:
        scale = UNITS[(found and found[2]) or unit]
        exact = Fraction(found[1] if found else "") * scale
    except (KeyError, ValueError):
        hint = f"a number and one of {', '.join(UNITS)}, such as 1ms"
        raise LdsnnError(Problem(f"is no duration: {value!r}", kind="events", attribute=name, hint=hint)) from None
    if exact.denominator != 1:
        text = f"{value} is no whole number of nanoseconds"
        raise LdsnnError(Problem(text, kind="events", attribute=name))
    return -int(exact) if str(value).startswith("-") else int(exact)
