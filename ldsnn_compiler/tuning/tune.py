"""Tuning a network: for each of its regions a search over loop structures, and what came of it.

A region's loop structure is replaced only by one that is clearly faster twice: in the search, and in a check of more
rounds that only the best of the search get. So a region is never slower for noise. In the end the whole network is
built again with what won, and must give the same bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.progress import Progress, Watch, silent
from ldsnn_compiler.results import Latency
from ldsnn_compiler.runtime.compiled import Compiled, Settings
from ldsnn_compiler.targets.cpu.kernels import Tuning
from ldsnn_compiler.tuning.bench import Bench, DeviceBench
from ldsnn_compiler.tuning.database import Comparison, Database, Place, Stage
from ldsnn_compiler.tuning.launches import Launches
from ldsnn_compiler.tuning.regions import Region, known_tunings, regions
from ldsnn_compiler.tuning.space import Choices, Space, climb

TRIALS = 32
"""Loop structures tried of each region."""
ROUNDS, CHECK_ROUNDS = 5, 15
"""Rounds of a trial, and of the check of a winner."""
FINALISTS = 3
"""How many of the best of a search are checked, one after the other, until one passes."""
CURRENTS_SHARE = 0.5
"""Of the second-level cache, for the currents of one task."""


@dataclass(frozen=True)
class Row:
    """What came of one region: loop structures tried (of which ``measured`` now, the others known before), the winner
    (None: the rules of thumb), and the check that it passed."""

    region: Region
    tried: int
    measured: int
    tuning: Tuning | None = None
    check: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; times in ms of the rules of thumb and of the winner."""
        warm = self.check.warm_ms if self.check else (None, None)
        return {
            "path": self.region.path, "region": self.region.key, "density": self.region.density,
            "calls": self.region.calls, "tried": self.tried, "measured": self.measured,
            "tuning": asdict(self.tuning) if self.tuning else None, "usual": asdict(self.region.spec.tuning),
            "usual_ms": warm[0], "ms": warm[1], "ratio": self.check.ratio if self.check else 1.0,
        }  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """What came of a network: ``network`` is built with all that won, on the same device."""

    rows: tuple[Row, ...]
    network: Compiled
    database: Path
    before: Latency
    after: Latency

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        settings = self.network.settings
        return {
            "target": settings.board.name, "threads": settings.threads, "batch": settings.batch,
            "device": self.network.device.name, "database": str(self.database),
            "before_ms": self.before.median, "after_ms": self.after.median,
            "regions": [row.to_json() for row in self.rows],
        }  # fmt: skip


def tune(
    network: Compiled,
    *inputs: torch.Tensor,
    trials: int = TRIALS,
    storage: str | Path | None = None,
    entry: str = "run",
    seed: int = 0,
    progress: Progress = silent,
    bench: Bench | None = None,
) -> Tuned:
    """Tune every region of a compiled network on the device that it runs on (:meth:`Compiled.on` a board).

    :func:`ldsnn_compiler.compile` uses what was found from then on. What is in the database is not measured again, so
    that a killed call goes on where it was when it is repeated.

    Args:
        inputs: data ``[T, N, *shape]`` whose densities the regions are timed at; without them densities are guessed.
        trials: loop structures to try of each region.
        storage: SQLite file; default is the user's cache folder.
        entry: ``run``, whole windows, or ``step``, streaming.
        bench: what measures; default is the network's own device.

    Raises:
        LdsnnError: the device is not there or goes away; the database cannot be used.
    """
    if trials < 1:
        raise LdsnnError(f"at least one loop structure is tried, not {trials}")
    densities = count_work(network.graph, *inputs)[1].densities() if inputs else {}
    wanted = regions(network.graph, network.settings.board, entry, densities)
    database = Database(Path(storage) if storage is not None else None)
    work = _Work(network, bench or DeviceBench(network), database, Watch("tuning", trials * len(wanted), progress))
    try:
        rows = tuple(work.row(region, i * trials, trials, seed) for i, region in enumerate(wanted))
        work.watch.show(trials * len(wanted))
    finally:
        database.close()
    won = known_tunings(network.graph, network.settings.board, network.settings.batch, densities, database.path)
    return _rebuilt(network, won, rows, database.path)


class _Work:
    """The search of one network."""

    def __init__(self, network: Compiled, bench: Bench, database: Database, watch: Watch) -> None:
        self.network, self.bench, self.database, self.watch = network, bench, database, watch
        self.measured = 0

    def row(self, region: Region, done: int, trials: int, seed: int) -> Row:
        """Search, then check the best."""
        before, tried = self.measured, 0

        def relative(tuning: Tuning) -> float:
            nonlocal tried
            self.watch.show(done + tried)
            tried += 1
            return self._compared(region, tuning, "trial", ROUNDS).ratio

        times = climb(_choices(region, self.network.settings), relative, trials, seed ^ zlib.crc32(region.key.encode()))
        winner, check = self._checked(region, times)
        return Row(region, tried, self.measured - before, winner, check)

    def _checked(self, region: Region, times: dict[Tuning, float]) -> tuple[Tuning | None, Comparison | None]:
        for tuning in sorted(times, key=lambda each: times[each])[:FINALISTS]:
            if tuning != region.spec.tuning and self._compared(region, tuning, "trial", ROUNDS).is_clear:
                found = self._compared(region, tuning, "check", CHECK_ROUNDS)
                if found.is_clear:
                    return tuning, found
        return None, None

    def _compared(self, region: Region, tuning: Tuning, stage: Stage, rounds: int) -> Comparison:
        """From the database, or measured and put there."""
        settings = self.network.settings
        place = Place(settings.board, region.spec, settings.batch, region.density)
        found = self.database.find(place, tuning, stage)
        if found is None:
            found = self.bench.compare(region, tuning, rounds)
            self.database.add(place, tuning, found, stage)
            self.measured += 1
            self.watch.finished_one()
        return found


def _choices(region: Region, settings: Settings) -> Choices:
    if settings.board.gpu is not None:
        return Launches(replace(region.spec, batch=settings.batch), settings.board.gpu)
    return Space(region.spec, int(CURRENTS_SHARE * 1024 * settings.board.l2_kib))


def _rebuilt(network: Compiled, won: dict[str, Tuning], rows: Sequence[Row], path: Path) -> Tuned:
    """The network with what won, held against what the rules of thumb make of it."""
    from ldsnn_compiler.driver import assemble

    def built(tunings: dict[str, Tuning]) -> Compiled:
        same = tunings == network.settings.tunings
        settings = replace(network.settings, tunings=tunings)
        return network if same else assemble(network.graph, settings, device=network.device)

    usual, tuned = built({}), built(won)
    given = _example(network)
    for a, b in zip(usual.run(*given), tuned.run(*given), strict=True):
        if not torch.equal(a, b):
            raise LdsnnError("the tuned network gives other results than the untuned one; please report this")
    rounds = [(_time_ms(usual, given), _time_ms(tuned, given)) for _ in range(ROUNDS)]
    before, after = (Latency(times) for times in zip(*rounds, strict=True))
    return Tuned(tuple(rows), tuned, path, before, after)


def _time_ms(network: Compiled, given: Sequence[torch.Tensor]) -> float:
    _, arguments = network.bound(*given)
    return network.device.times(network.vm, "run", arguments, 1)[0] * 1e3


def _example(network: Compiled) -> list[torch.Tensor]:
    """Numbers between 0 and 1, not all dyadic, for every input."""
    random, batch = torch.Generator().manual_seed(0), network.settings.batch or 1
    return [torch.rand((n.type.timesteps, batch, *n.type.shape), generator=random) for n in network.graph.inputs]
