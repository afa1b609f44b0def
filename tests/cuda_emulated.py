"""GPU kernels run on the CPU, threads as loops, over random networks: bit for bit what the interpreter says.

``python tests/cuda_emulated.py 200`` runs as many, plain, under schedules, in whole numbers; CI runs fewer. A second
number is the seed.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any
from unittest.mock import patch

from graphs import SOFT_IF, SPIKING, inputs_of, networks, run, some_schedule
from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis import strategies as st
from target_harness import assert_equal, check_steps

from ldsnn_compiler.driver import DEFAULT_PIPELINE, Prepared, assemble, prepare
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.cuda.emulate import emulated

BOARDS = ("rtx-30", "rtx-40", "h100")
#: the package's attribute of that name is a function
LAUNCH = import_module("ldsnn_compiler.targets.cuda.kernels.launch")
#: ``matrix``: dense, and on tensor cores however few the channels
KERNELS = ("event", "dense", "matrix")
#: what is compiled: the network as it is, under a schedule, in whole numbers, or both
KINDS = ("plain", "scheduled", "whole", "scheduled whole")


def pipeline(kernel: str) -> str:
    """The default pipeline with one kind of kernel wherever there is the choice."""
    placed = "dense" if kernel == "matrix" else kernel
    return DEFAULT_PIPELINE.replace("select-kernels", f"select-kernels{{kernel={placed}}}")


@contextmanager
def on_tensor_cores(always: bool = True) -> Iterator[None]:
    """Layers of any size on tensor cores while this lasts."""
    least = {"LEAST_CHANNELS": 0, "LEAST_INPUTS": 1} if always else {}
    with patch.multiple(LAUNCH, **least) if least else nullcontext():
        yield


def check_network(net: Graph, target: Board, kernel: str = "event", batch: int | None = 2) -> Compiled:
    """Whole runs, steps, and the state they leave, against the network as it was."""
    with on_tensor_cores(kernel == "matrix"):
        return check_prepared(prepared(net, target, kernel, batch), net)


def prepared(net: Graph, target: Board, kernel: str, batch: int | None, kind: str = "plain", draw: int = 0) -> Prepared:
    """The network through all passes, before there is code. Whatever cannot be of that kind is refused here."""
    options: dict[str, Any] = {"pipeline": pipeline(kernel), "batch": batch, "threads": 1}
    if "scheduled" in kind:
        options["schedule"] = some_schedule(net, random.Random(draw))
    if "whole" in kind:
        options |= {"numerics": "int", "calibration": calibrate(net, *inputs_of(net))}
    return prepare(net, target=target, **options)


def check_prepared(made: Prepared, wanted: Graph) -> Compiled:
    """Code for it gives what the interpreter says of ``wanted``: outputs of runs and of steps, and state."""
    network = assemble(made.graph, made.settings)
    data = inputs_of(wanted, made.settings.batch or 3)
    assert_equal("run", network.run(*data), run(wanted, data))
    check_steps(network, data, 1)
    return network


def check_networks(count: int, seed_: int = 0) -> Counter[str]:
    """As many random networks, on boards and with kernels drawn as well; how many of which kind there were, and in how
    many some layer reads its input less often than it emits."""
    done: Counter[str] = Counter()
    quiet = settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=(Phase.generate,),
    )  # fmt: skip

    @seed(seed_)
    @quiet
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        kind, kernel = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(KERNELS))
        batch, name = data.draw(st.sampled_from((1, 2, 3, None))), data.draw(st.sampled_from(BOARDS))
        # a schedule is of closed forms, which soft resets have
        soft = "scheduled" in kind
        net = data.draw(networks(neurons=SOFT_IF if soft else SPIKING, slices=not soft))
        with on_tensor_cores(kernel == "matrix"):
            try:
                made = prepared(net, emulated(board(name)), kernel, batch, kind, data.draw(st.integers(0, 2**16)))
            except LdsnnError:
                reject()
            check_prepared(made, net if kind == "plain" else made.graph)
        done.update([kind, kernel, *["reads less often"] * reads_less_often(made)])

    check()
    return done


def reads_less_often(made: Prepared) -> bool:
    """Whether its schedule has a layer that does."""
    text = made.settings.schedule
    layers = Schedule.parse(text).layers.values() if text else ()
    return any(layer.input_timesteps for layer in layers)


if __name__ == "__main__":
    found = check_networks(*(int(number) for number in sys.argv[1:]))
    print(f"{sys.argv[1]} networks: identical ({', '.join(f'{n} {what}' for what, n in sorted(found.items()))})")
