"""Progress of long searches, with the time left."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int, float | None], None]
"""Called as ``progress(phase, done, total, seconds left)``; None while that is not known."""


def silent(phase: str, done: int, total: int, left: float | None) -> None:
    """No progress."""


class Watch:
    """Done, total, and the time left if it goes on like this."""

    def __init__(self, phase: str, total: int, progress: Progress) -> None:
        self._phase, self._total, self._progress = phase, total, progress
        self._start, self._own = time.monotonic(), 0

    def finished_one(self) -> None:
        """This process did one more."""
        self._own += 1

    def show(self, done: int) -> None:
        """Report; the pace is that of this process, what it found done already took no time."""
        pace = (time.monotonic() - self._start) / self._own if self._own else None
        left = None if pace is None else pace * (self._total - done)
        self._progress(self._phase, done, self._total, left if done < self._total else 0.0)
