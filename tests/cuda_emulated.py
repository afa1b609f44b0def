"""GPU kernels run on the CPU, threads as loops, over random networks: bit for bit what the interpreter says.

``python tests/cuda_emulated.py 200`` runs as many; CI runs fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from unittest.mock import patch

from graphs import inputs_of, networks, run
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from target_harness import assert_equal, check_steps, compiled

from ldsnn_compiler.driver import DEFAULT_PIPELINE
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.cuda.emulate import emulated

BOARDS = ("rtx-30", "rtx-40", "h100")
#: the package's attribute of that name is a function
LAUNCH = import_module("ldsnn_compiler.targets.cuda.kernels.launch")
#: ``matrix``: dense, and on tensor cores however few the channels
KERNELS = ("event", "dense", "matrix")


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


def check_network(net: Graph, target: Board, kernel: str = "event", batch: int | None = 2) -> None:
    """Whole runs, steps, and the state they leave."""
    with on_tensor_cores(kernel == "matrix"):
        network = compiled(net, target=target, batch=batch, pipeline=pipeline(kernel))
        data = inputs_of(net, 3 if batch is None else batch)
        assert_equal("run", network.run(*data), run(net, data))
        check_steps(network, data, 1)


def check_networks(count: int, seed_: int = 0) -> None:
    """As many random networks, on boards and with kernels drawn as well."""
    quiet = settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=(Phase.generate,),
    )  # fmt: skip

    @seed(seed_)
    @quiet
    @given(
        net=networks(),
        name=st.sampled_from(BOARDS),
        kernel=st.sampled_from(KERNELS),
        batch=st.sampled_from((1, 2, None)),
    )
    def check(net: Graph, name: str, kernel: str, batch: int | None) -> None:
        check_network(net, emulated(board(name)), kernel, batch)

    check()


if __name__ == "__main__":
    check_networks(int(sys.argv[1]))
    print(f"{sys.argv[1]} networks: identical")
