"""A search in a process of its own, for the tests that kill one and that let two share a storage.

``python search_worker.py STORAGE NAME WORKERS KILL_AFTER``: waits until that many workers are ready, searches, prints
one JSON line; with KILL_AFTER above 0 it kills itself after as many evaluations, as a power cut would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from graphs import Net

from ldsnn_compiler.data import Data
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.search.optimize import Effort, Result, optimize

EFFORT = Effort(width=3, rounds=2, moves=2)


def network() -> Graph:
    """Three IF layers on a static image, with a shortcut; four timesteps."""
    net = Net(4, name="residual")
    a = net.neuron(net.conv(net.input((1, 6, 6), "static"), 2))
    b = net.neuron(net.conv(a, 2))
    c = net.neuron(net.op("add", net.conv(b, 2), a))
    return net.output(net.op("readout", net.linear(net.op("flatten", c), 3), mode="mean"))


def data(labels: bool = False, count: int = 24) -> Data:
    """Random images, halves for calibration and report; labels at random."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 9, (2, count, 1, 6, 6), generator=generator).float() / 8
    y = torch.randint(0, 3, (2, count), generator=generator)
    return Data((x[0], y[0] if labels else None), (x[1], y[1] if labels else None), "random")


def search(storage: str | None, kill_after: int = 0, rest: float = 0.0, **options: object) -> Result:
    """The search that all workers run; ``rest`` seconds after each evaluation leave the next one to somebody else."""
    done = 0

    def progress(phase: str, finished: int, total: int, left: float | None) -> None:
        nonlocal done
        done += finished > 0
        time.sleep(rest)
        if kill_after and done > kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    return optimize(network(), data(), 0.2, storage=storage, effort=EFFORT, progress=progress, **options)  # type: ignore[arg-type]


def main() -> None:
    storage, name, workers, kill_after = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    folder = Path(name).parent
    Path(name).touch()
    while len(list(folder.glob("ready*"))) < workers:
        time.sleep(0.02)
    result = search(storage, kill_after, rest=0.2 if workers > 1 else 0.0)
    print(json.dumps({"schedule": result.schedule.text(), "evaluated": result.evaluated}))


if __name__ == "__main__":
    main()
