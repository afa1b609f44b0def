"""Evaluating many schedules: through the journal, with progress, alone or beside other workers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.evaluate import Evaluator, Figures
from ldsnn_compiler.search.journal import Journal, pause

Progress = Callable[[str, int, int, float | None], None]
"""Called as ``progress(phase, done, total, seconds left)``; None while that is not known."""


def silent(phase: str, done: int, total: int, left: float | None) -> None:
    """No progress."""


@dataclass
class Session:
    """An evaluator whose figures go through a journal."""

    evaluator: Evaluator
    journal: Journal
    progress: Progress = silent
    evaluated: int = 0
    _base: Schedule | None = field(default=None, init=False)

    def reference(self) -> Figures:
        """The original network's figures."""
        key = f"{self.evaluator.fingerprint}/original"
        while (record := self.journal.finished().get(key)) is None:
            if self.journal.claim(key):
                self._guarded(key, lambda: self.journal.finish(key, self.evaluator.reference_record()))
            elif key not in self.journal.finished():
                pause()
        return self.evaluator.adopt(record)

    def evaluate(self, schedules: Sequence[Schedule], phase: str, base: Schedule | None = None) -> list[Figures]:
        """Figures of every schedule, in order. ``base`` is remembered first, if anything is left to do."""
        self.reference()
        keys = [self._key(s) for s in schedules]
        wanted = dict(zip(keys, schedules, strict=True))
        watch = _Watch(phase, len(wanted), self.progress)
        while missing := [k for k in wanted if k not in (finished := self.journal.finished())]:
            watch.show(len(wanted) - len(missing))
            worked = False
            for key in missing:
                if self.journal.claim(key):
                    self._guarded(key, lambda key=key: self._one(key, wanted[key], base))  # type: ignore[misc]
                    watch.finished_one()
                    worked = True
                    watch.show(sum(k in self.journal.finished() for k in wanted))
            if not worked:
                pause()
        watch.show(len(wanted))
        return [Figures.from_json(finished[key]) for key in keys]

    def _one(self, key: str, schedule: Schedule, base: Schedule | None) -> None:
        if base is not None and base != self._base:
            self.evaluator.remember(base)
            self._base = base
        self.journal.finish(key, self.evaluator.evaluate(schedule).to_json())
        self.evaluated += 1

    def _guarded(self, key: str, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException:
            self.journal.release(key)
            raise

    def _key(self, schedule: Schedule) -> str:
        text = f"{self.evaluator.fingerprint}\n{schedule.text()}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _Watch:
    """Done, total, and the time left if it goes on like this."""

    def __init__(self, phase: str, total: int, progress: Progress) -> None:
        self._phase, self._total, self._progress = phase, total, progress
        self._start, self._own = time.monotonic(), 0

    def finished_one(self) -> None:
        self._own += 1

    def show(self, done: int) -> None:
        """Report; the pace is that of this process, shared work counts as done."""
        pace = (time.monotonic() - self._start) / self._own if self._own else None
        left = None if pace is None else pace * (self._total - done)
        self._progress(self._phase, done, self._total, left if done < self._total else 0.0)
