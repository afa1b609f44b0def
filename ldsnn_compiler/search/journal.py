"""The journal of a search: what was evaluated, and what is being evaluated by whom.

A search is one Optuna study, an evaluation one trial: running while it is claimed, complete with its record. Killed
searches go on where they were; workers that share a storage share the work, since every one of them runs the same
deterministic search and evaluates only what nobody has evaluated or claimed.

A claim is void when its process is gone: at once on the same machine, after :data:`LEASE` seconds elsewhere.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

LEASE = 900.0
"""Seconds after which another machine's claim is void."""
CHUNK = 30_000
"""Characters of a record in one attribute: databases limit them."""

Record = Mapping[str, Any]


class Journal(Protocol):
    """Finished records by key, and claims on what is to be evaluated next."""

    def finished(self) -> Mapping[str, Record]:
        """All records at present."""

    def claim(self, key: str) -> bool:
        """Whether this process is to evaluate ``key`` now; False if that is done or another's business."""

    def finish(self, key: str, record: Record) -> None:
        """Store what a claimed evaluation gave."""

    def release(self, key: str) -> None:
        """Give a claim up."""


class MemoryJournal:
    """Keeps records for this process only."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def finished(self) -> Mapping[str, Record]:
        return self._records

    def claim(self, key: str) -> bool:
        return key not in self._records

    def finish(self, key: str, record: Record) -> None:
        self._records[key] = record

    def release(self, key: str) -> None:
        self._records.pop(key, None)


class OptunaJournal:
    """Keeps records in an Optuna storage.

    Args:
        storage: a database URL (``sqlite:///search.db``, ``postgresql://...``), or the path of a journal file, which
            may lie on a network drive.
        study: name of the search; others may share the storage.

    Raises:
        LdsnnError: Optuna is not installed, or the storage cannot be opened.
    """

    def __init__(self, storage: str, study: str) -> None:
        self._storage = _open(storage)
        self._study = _study(self._storage, study)
        self._owner = _owner()
        self._claimed: dict[str, int] = {}
        self._records: dict[str, Record] = {}
        self._read: set[int] = set()

    def finished(self) -> Mapping[str, Record]:
        from optuna.trial import TrialState

        for trial in self._storage.get_all_trials(self._study, deepcopy=False, states=(TrialState.COMPLETE,)):
            if trial._trial_id not in self._read:
                self._read.add(trial._trial_id)
                self._records.setdefault(trial.user_attrs["key"], _record(trial))
        return self._records

    def claim(self, key: str) -> bool:
        if any(self._live(trial) for trial in self._of(key)):
            return False
        number = self._storage.create_new_trial(self._study, _running(key, self._owner))
        first = min((t._trial_id for t in self._of(key) if self._live(t)), default=number)
        if first != number:
            self._give_up(number)
            return False
        self._claimed[key] = number
        return True

    def finish(self, key: str, record: Record) -> None:
        from optuna.trial import TrialState

        number, text = self._claimed.pop(key), json.dumps(record, separators=(",", ":"))
        for i in range(0, len(text), CHUNK):
            self._storage.set_trial_user_attr(number, f"record{i // CHUNK:04}", text[i : i + CHUNK])
        self._storage.set_trial_state_values(number, TrialState.COMPLETE, [float(record.get("loss", 0.0))])

    def release(self, key: str) -> None:
        self._give_up(self._claimed.pop(key))

    # ---- inside

    def _of(self, key: str) -> list[FrozenTrial]:
        """Claims and records of one key; claims that are void are closed."""
        from optuna.trial import TrialState

        states = (TrialState.RUNNING, TrialState.COMPLETE)
        trials = self._storage.get_all_trials(self._study, deepcopy=False, states=states)
        mine = [t for t in trials if t.user_attrs.get("key") == key]
        for trial in mine:
            if not self._live(trial):
                self._give_up(trial._trial_id)
        return mine

    def _live(self, trial: FrozenTrial) -> bool:
        if trial.state.is_finished():
            return True
        owner, started = trial.user_attrs["owner"], trial.datetime_start or datetime.min
        host, pid, birth = owner.rsplit(":", 2)
        if host == platform.node():
            return bool(_birth(int(pid)) == birth)
        return bool(datetime.now() - started < timedelta(seconds=LEASE))

    def _give_up(self, number: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):  # its owner, or another worker, closed it meanwhile
            self._storage.set_trial_state_values(number, TrialState.FAIL)


def open_journal(storage: str | None, study: str) -> Journal:
    """The journal in ``storage``, or one in memory for None."""
    return MemoryJournal() if storage is None else OptunaJournal(storage, study)


def load_optuna() -> Any:
    """The package, told to keep quiet; LdsnnError if it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        hint = "pip install 'ldsnn-compiler[search]', or search without a storage and without global refinement"
        message = f"a search is stored and refined globally with Optuna, and {error.name} is missing"
        raise LdsnnError(Problem(message, hint=hint)) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(storage: str) -> BaseStorage:
    load_optuna()
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" not in storage:
            return JournalStorage(JournalFileBackend(storage))
        wait = {"connect_args": {"timeout": 120}} if storage.startswith("sqlite") else {}
        return get_storage(RDBStorage(storage, engine_kwargs=wait))  # reads only what is new
    except Exception as error:  # whatever the database driver raises: not there, no rights, an unknown scheme
        shown = storage if "@" not in storage else storage.split("@")[-1]
        message = f"cannot be opened, {type(error).__name__}: {str(error).splitlines()[0]}"
        hint = "a database URL such as sqlite:///search.db, or a file path"
        raise LdsnnError(Problem(message, where=shown, hint=hint)) from error


def _study(storage: BaseStorage, name: str) -> int:
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    try:
        return storage.create_new_study([StudyDirection.MINIMIZE], name)
    except DuplicatedStudyError:
        return storage.get_study_id_from_name(name)


def _running(key: str, owner: str) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    trial = create_trial(state=TrialState.RUNNING, user_attrs={"key": key, "owner": owner})
    trial.datetime_start = datetime.now()
    return trial


def _record(trial: FrozenTrial) -> Record:
    parts = [v for k, v in sorted(trial.user_attrs.items()) if k.startswith("record")]
    record: Record = json.loads("".join(parts))
    return record


def _owner() -> str:
    return f"{platform.node()}:{os.getpid()}:{_birth(os.getpid())}"


def _birth(pid: int) -> str:
    """When a process started, in clock ticks after boot; empty if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _alive(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str:
    """Where there is no /proc: whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"


def pause(seconds: float = 0.2) -> None:
    """Wait for other workers."""
    time.sleep(seconds)
