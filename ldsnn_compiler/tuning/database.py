"""The database of measurements: what was timed on which board, and which loop structure of a region won there.

One SQLite file for all boards (:func:`default_path`). A measurement is a row, committed when it is made, so that a
killed search goes on behind the last one. Its key: the board (what decides over speed: CPU, features, cores, caches),
the region with the loop structure of the rules of thumb, the batch, the density of the inputs to the nearest power of
two, the loop structure tried, the stage (a first ``trial``, or the longer ``check`` that a winner has to pass).

Nothing in it can change a result: every loop structure computes the same numbers, and one that did not is recorded as
such and never chosen.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from ldsnn_compiler import cache
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.targets.boards import Board, Cost
from ldsnn_compiler.targets.cpu.kernels import RegionSpec, Tuning
from ldsnn_compiler.targets.cpu.kernels.tune import read_tuning, region_key

VERSION = 1
"""Of the rows' meaning: raised when kernels change so that old times say nothing about them, or their timing does."""
MARGIN = 0.03
"""A loop structure replaces that of the rules of thumb if it takes at least so much less time."""
ROUNDS_WON = 0.75
"""... and is the faster one in at least this share of the rounds."""
WAIT_S = 60.0
"""Seconds to wait for another process that writes."""

Stage = Literal["trial", "check"]

_TABLES = """
CREATE TABLE IF NOT EXISTS boards (board TEXT PRIMARY KEY, what TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS regions (region TEXT PRIMARY KEY, what TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS measurements (
  board TEXT, region TEXT, batch TEXT, density REAL, tuning TEXT, stage TEXT, found TEXT NOT NULL,
  PRIMARY KEY (board, region, batch, density, tuning, stage));
"""


@dataclass(frozen=True)
class Comparison:
    """A loop structure beside that of the rules of thumb, timed in turn, round after round, in ms.

    ``warm``: called again and again; ``cold``: after its weights were flushed from the caches; pairs (rule of thumb,
    this one), one per round. ``wrong``: why it is out of the question whatever it takes ("": it is not).
    """

    warm: tuple[tuple[float, float], ...] = ()
    cold: tuple[tuple[float, float], ...] = ()
    wrong: str = ""

    @property
    def ratio(self) -> float:
        """Time relative to the rule of thumb's, the geometric mean of warm and cold; infinite if it is wrong."""
        if self.wrong:
            return math.inf
        medians = [median(new for _, new in rounds) / median(old for old, _ in rounds) for rounds in self._kinds]
        return math.prod(medians) ** (1 / len(medians))

    @property
    def is_clear(self) -> bool:
        """Whether this one is faster beyond doubt."""
        if self.wrong or self.ratio > 1.0 - MARGIN:
            return False
        won = [sum(new < old for old, new in rounds) / len(rounds) for rounds in self._kinds]
        return sum(won) / len(won) >= ROUNDS_WON

    @property
    def warm_ms(self) -> tuple[float, float]:
        """Medians (rule of thumb, this one), caches warm."""
        return median(old for old, _ in self.warm), median(new for _, new in self.warm)

    @property
    def _kinds(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        return self.warm, self.cold


@dataclass(frozen=True)
class Place:
    """Where a region was measured: the first parts of a row's key."""

    board: Board
    spec: RegionSpec
    batch: int | None
    density: float

    @property
    def region(self) -> str:
        """Short name of the region."""
        return region_key(self.spec)


def board_text(board: Board) -> str:
    """What decides over speed, as JSON: not the name, not what ``select-kernels`` reckons with."""
    import tvm

    plain = replace(board, name="", doc="", cost=Cost()).to_json()
    return json.dumps({**plain, "version": VERSION, "tvm": tvm.__version__}, sort_keys=True)


def rounded(density: float) -> float:
    """The nearest power of two, from 2**-10 to 1."""
    return 2.0 ** max(-10, min(0, round(math.log2(max(density, 2.0**-10)))))


def default_path() -> Path:
    """The file that is used unless another is named."""
    return cache.folder() / "tuning.sqlite"


class Database:
    """The file at ``path``, made if it does not exist.

    Raises:
        LdsnnError: there is something else, or it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Give the file up."""
        self._connection.close()

    def find(self, place: Place, tuning: Tuning, stage: Stage = "trial") -> Comparison | None:
        """What was measured, or None."""
        sql = "SELECT found FROM measurements WHERE (board, region, batch, density, tuning, stage) = (?, ?, ?, ?, ?, ?)"
        with self._said():
            row = self._connection.execute(sql, (*_key(place), _tuning_text(tuning), stage)).fetchone()
        return None if row is None else _comparison(row[0])

    def add(self, place: Place, tuning: Tuning, found: Comparison, stage: Stage = "trial") -> None:
        """Keep a measurement; it is on the disk when this returns."""
        key = _key(place)
        with self._said():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT OR IGNORE INTO boards VALUES (?, ?)", (key[0], board_text(place.board)))
            self._connection.execute("INSERT OR IGNORE INTO regions VALUES (?, ?)", (key[1], repr(place.spec)))
            values = (*key, _tuning_text(tuning), stage, json.dumps(asdict(found)))
            self._connection.execute("INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            self._connection.execute("COMMIT")

    def winners(self, board: Board, batch: int | None) -> Mapping[str, Mapping[float, Tuning]]:
        """By region and density the loop structure that passed its check as the fastest."""
        sql = "SELECT region, density, tuning, found FROM measurements WHERE (board, batch, stage) = (?, ?, 'check')"
        with self._said():
            rows = self._connection.execute(sql, (_board_key(board), str(batch))).fetchall()
        best: dict[tuple[str, float], tuple[float, str]] = {}
        for region, density, tuning, text in rows:
            found = _comparison(text)
            if found.is_clear:
                best[region, density] = min(best.get((region, density), (math.inf, "")), (found.ratio, tuning))
        answer: dict[str, dict[float, Tuning]] = {}
        for (region, density), (_, tuning) in sorted(best.items()):
            answer.setdefault(region, {})[density] = read_tuning(json.loads(tuning))
        return answer

    def size(self) -> int:
        """How many measurements there are."""
        with self._said():
            return int(self._connection.execute("SELECT count(*) FROM measurements").fetchone()[0])

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "name another file, or delete this one: it only holds times"
            message = f"the database of tuning cannot be used, {error}"
            raise LdsnnError(Problem(message, where=str(self.path), hint=hint)) from error


def nearest(found: Mapping[float, Tuning], density: float) -> Tuning:
    """Of the winners at several densities that of the nearest one."""
    return found[min(found, key=lambda each: (abs(math.log2(each / rounded(density))), each))]


def _key(place: Place) -> tuple[str, str, str, float]:
    return _board_key(place.board), place.region, str(place.batch), rounded(place.density)


def _board_key(board: Board) -> str:
    return cache.digest(board_text(board))


def _tuning_text(tuning: Tuning) -> str:
    return json.dumps(asdict(tuning), sort_keys=True)


def _comparison(text: str) -> Comparison:
    values = json.loads(text)
    warm, cold = (tuple((old, new) for old, new in values[kind]) for kind in ("warm", "cold"))
    return Comparison(warm, cold, values["wrong"])
