"""Killed searches go on, workers share the work, nothing is evaluated twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from search_worker import search

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.search.journal import MemoryJournal, OptunaJournal, open_journal

WORKER = Path(__file__).with_name("search_worker.py")


def start(storage: str, ready: Path, workers: int = 1, kill_after: int = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(WORKER), storage, str(ready), str(workers), str(kill_after)]
    environment = {"PYTHONPATH": str(WORKER.parent.parent), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    answer: dict[str, object] = json.loads(out)
    return answer


def complete(storage: str) -> Counter[str]:
    """How often each key was finished."""
    study = optuna.load_study(study_name="residual", storage=storage)
    state = optuna.trial.TrialState.COMPLETE
    return Counter(t.user_attrs["key"] for t in study.get_trials(states=(state,)))


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/search.db"
    killed = start(storage, tmp_path / "ready", kill_after=7)
    killed.communicate(timeout=120)
    assert killed.returncode == -9
    before = complete(storage)
    assert len(before) >= 3
    resumed = search(storage)
    after = complete(storage)
    assert set(after.values()) == {1} and before.keys() < after.keys()
    originals = sum("/original" in key for key in after.keys() - before.keys())
    assert resumed.evaluated == len(after) - len(before) - originals
    assert resumed.schedule == search(None).schedule
    assert search(storage).evaluated == 0


def test_two_workers_share_a_search(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/search.db"
    OptunaJournal(storage, "residual")
    workers = [start(storage, tmp_path / f"ready{i}", workers=2) for i in range(2)]
    answers = [finished(w) for w in workers]
    keys = complete(storage)
    assert set(keys.values()) == {1}
    assert answers[0]["schedule"] == answers[1]["schedule"] == search(None).schedule.text()
    done = [int(str(a["evaluated"])) for a in answers]
    assert all(done) and sum(done) == sum("/original" not in key for key in keys)


@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_claims_are_exclusive_and_records_come_back_whole(tmp_path: Path, kind: str):
    storage = f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else str(tmp_path / "a.log")
    one, two = OptunaJournal(storage, "s"), OptunaJournal(storage, "s")
    two._owner = one._owner  # the same living process
    assert one.claim("k") and not two.claim("k") and two.claim("other")
    record = {"loss": 0.5, "text": "x" * 100_000}
    one.finish("k", record)
    assert two.finished() == {"k": record} and not two.claim("k")
    two.release("other")
    assert one.claim("other")


def test_a_claim_of_a_dead_process_is_void_and_one_of_another_machine_is_not(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/a.db"
    dead, far, here = (OptunaJournal(storage, "s") for _ in range(3))
    dead._owner = dead._owner.rsplit(":", 1)[0] + ":1"
    far._owner = "elsewhere:1:1"
    assert dead.claim("k") and far.claim("f")
    assert here.claim("k") and not here.claim("f")


def test_storages_that_cannot_be_opened_are_named(tmp_path: Path):
    with pytest.raises(LdsnnError, match="cannot be opened"):
        OptunaJournal(f"sqlite:///{tmp_path}/no/such/folder.db", "s")
    with pytest.raises(LdsnnError, match="host/name: cannot be opened"):
        OptunaJournal("nosuchdatabase://user:secret@host/name", "s")


def test_without_a_storage_records_stay_in_memory():
    journal = open_journal(None, "s")
    assert isinstance(journal, MemoryJournal) and journal.claim("k")
    journal.finish("k", {"loss": 1.0})
    assert not journal.claim("k") and journal.finished() == {"k": {"loss": 1.0}}
