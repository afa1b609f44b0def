"""A tuning that takes no time: regions of a small network, times that are made up. As a program it tunes until it has
measured so many loop structures, and then is killed: ``python tuning_worker.py STORAGE LOG MEASUREMENTS``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from graphs import Net

from ldsnn_compiler.driver import compile
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.targets.cpu.kernels import Tuning
from ldsnn_compiler.tuning.database import Comparison
from ldsnn_compiler.tuning.regions import Region
from ldsnn_compiler.tuning.tune import tune

TRIALS = 6


def network() -> Graph:
    """Three layers, two of them alike but for their weights."""
    net = Net(4, seed=3)
    x = net.neuron(net.conv(net.input((3, 6, 6)), 70))
    for _ in range(2):
        x = net.neuron(net.conv(x, 70))
    return net.output(net.linear(net.op("flatten", x), 3))


def compiled(**options: object) -> Compiled:
    """On one thread, whatever is in a database."""
    return compile(network(), **{"threads": 1, "tuned": False, **options})  # type: ignore[arg-type]


def relative(tuning: Tuning) -> float:
    """Made-up time of a loop structure relative to the rule of thumb's: best are tiles of 2x2, pixel by pixel."""
    rows, columns = tuning.tile
    return 0.5 + 0.1 * abs(rows - 2) + 0.1 * abs(columns - 2) + (0.2 if tuning.order != "pixel" else 0.0)


@dataclass
class MadeUp:
    """A bench that computes times; ``measured`` says of what, in order. ``killed_after``: then the process is killed,
    ``log`` lists what was measured before."""

    killed_after: int = 10**9
    log: Path | None = None
    measured: list[tuple[str, Tuning, int]] = field(default_factory=list)

    def compare(self, region: Region, tuning: Tuning, rounds: int) -> Comparison:
        if len(self.measured) == self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.measured.append((region.key, tuning, rounds))
        if self.log:
            with self.log.open("a") as log:
                log.write(json.dumps([region.key, repr(tuning), rounds]) + "\n")
        pairs = ((1.0, relative(tuning) / relative(region.spec.tuning)),) * rounds
        return Comparison(pairs, pairs)


if __name__ == "__main__":
    bench = MadeUp(int(sys.argv[3]), Path(sys.argv[2]))
    tune(compiled(), trials=TRIALS, storage=sys.argv[1], bench=bench)
