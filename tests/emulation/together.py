"""Many networks in one library: kernels that they share are compiled once, and a machine loads it once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from graphs import inputs_of

from emulation.compare import RUNNER, Case
from emulation.machine import environment
from ldsnn_compiler.driver import ENTRIES, Prepared
from ldsnn_compiler.runtime import light
from ldsnn_compiler.runtime.interface import Interface
from ldsnn_compiler.targets.boards import Board
from ldsnn_compiler.targets.build import relax_module
from ldsnn_compiler.targets.link import export
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Plan

LIBRARY = "net.so"
CYCLES = ("cycle", "initial_state")


def cases(into: Path, networks: Sequence[Prepared], batch: int, level: int | None = None) -> list[Case]:
    """Compile networks that were prepared for one board on one thread: a library in ``into``, a folder for each.

    ``level`` is how far LLVM optimises (0 to 3), by default as for users.
    """
    settings = networks[0].settings
    plans = [_plans(n) for n in networks]
    renamed = [_numbered(of, i) for i, each in enumerate(plans) for of in each.values()]
    code = tvm.compile(relax_module(renamed, batch), target=_target(settings.board, level))
    export(code, str(into / LIBRARY), settings.board)
    return [_case(into / str(i), n, plans[i], batch) for i, n in enumerate(networks)]


def _target(board: Board, level: int | None) -> Any:
    target = board.target(1)
    return target if level is None else tvm.target.Target({**target.export(), "opt-level": level})


def _plans(network: Prepared) -> dict[str, Plan]:
    settings = network.settings
    return {entry: plan(network.graph, settings.board, entry, settings.tunings) for entry in ENTRIES}


def _numbered(of: Plan, number: int) -> Plan:
    """The plan as one of many: a cycle's kernels are told apart by names of nodes, which are not unique now."""
    own = (replace(k, key=(number, k.key)) if k.name in CYCLES else k for k in of.kernels)
    return replace(of, entry=f"{of.entry}_{number}", kernels=list(own))


def _case(folder: Path, network: Prepared, plans: dict[str, Plan], batch: int) -> Case:
    folder.mkdir()
    light.write(folder, Interface.of(network.graph, plans), plans)
    inputs = inputs_of(network.graph, batch)
    np.savez(folder / "inputs.npz", **{str(i): x.numpy() for i, x in enumerate(inputs)})
    return Case(folder, network.graph, inputs)


def run_here(made: Sequence[Case]) -> None:
    """Run them all in one process of this machine, by the same program as on an emulated one."""
    command = [sys.executable, str(RUNNER), *(str(c.folder) for c in made)]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=3600, check=False)
    assert found.returncode == 0, f"{found.returncode}\n{found.stdout[-2000:]}{found.stderr[-4000:]}"
