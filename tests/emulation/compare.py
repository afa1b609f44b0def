"""Networks on the emulated machine held against the interpreter: outputs of whole runs and of steps, and all state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphs import inputs_of

from emulation import machine
from ldsnn_compiler.driver import compile
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph

RUNNER = Path(__file__).with_name("run.py")
#: the core of each board, by the emulator's name; it has no Cortex-A78AE, whose features are those of the Cortex-A76
CORES = {
    "aarch64": "cortex-a53",
    "jetson-orin": "cortex-a76",
    "raspberry-pi-4": "cortex-a72",
    "raspberry-pi-5": "cortex-a76",
}


@dataclass(frozen=True)
class Case:
    """A compiled network in a folder with its inputs, as :mod:`emulation.run` takes it; ``graph`` as lowered."""

    folder: Path
    graph: Graph
    inputs: tuple[torch.Tensor, ...]

    @property
    def refused(self) -> str:
        """What the loader said against it, or ""."""
        told = self.folder / "refused.txt"
        return told.read_text() if told.is_file() else ""


def case(folder: Path, graph: Graph, target: str, batch: int = 2, **options: Any) -> Case:
    """Compile a network for a board and write it into ``folder``."""
    network = compile(graph, target=target, batch=batch, threads=1, **options)
    network.save(folder / "net.ldsnn")
    inputs = inputs_of(network.graph, batch)
    np.savez(folder / "inputs.npz", **{str(i): x.numpy() for i, x in enumerate(inputs)})
    return Case(folder, network.graph, inputs)


def run(cases: Sequence[Case], core: str) -> None:
    """Run them all in one process on an emulated core."""
    made = machine.python([RUNNER, *(c.folder for c in cases)], core, timeout=3600)
    assert made.returncode == 0, f"{made.returncode}\n{made.stdout[-2000:]}{made.stderr[-4000:]}"


def differences(given: Case) -> list[str]:
    """What the emulated machine found that is not, bit for bit, what the interpreter says."""
    if given.refused:
        return [given.refused]
    wanted = _wanted(given.graph, given.inputs)
    with np.load(given.folder / "found.npz") as found:
        if found.files != list(wanted):
            return [f"found {sorted(set(found.files) ^ wanted.keys())} too much or too little"]
        return [name for name, value in wanted.items() if not np.array_equal(found[name], value.numpy())]


def _wanted(graph: Graph, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the names that :mod:`emulation.run` uses, in its order."""
    interpreter = Interpreter(graph)
    with torch.no_grad():
        wanted = {f"run/{i}": y for i, y in enumerate(interpreter.run(*inputs))}
        interpreter.reset()
        for k in range(graph.base_timesteps // graph.granule):
            each = [int(graph.granule / node.type.dt) for node in graph.inputs]
            now = [x[k * s : (k + 1) * s] for x, s in zip(inputs, each, strict=True)]
            wanted |= {f"step {k}/{i}": y for i, y in enumerate(interpreter.step(*now))}
            wanted |= {f"state {k}/{n}/{v}": x for n, vs in interpreter.state.items() for v, x in vs.items()}
    return wanted
