"""Evaluating many schedules: through the journal, with progress, alone or beside other workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ldsnn_compiler.progress import Progress, Watch, silent
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.search.evaluate import Evaluator, Figures
from ldsnn_compiler.search.journal import Journal, pause


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
        watch = Watch(phase, len(wanted), self.progress)
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
