"""A board of your own, in one file: a machine described as data.

python examples/custom_board.py
ldsnn compile MODEL --plugin examples/custom_board.py --target old-laptop
"""

from __future__ import annotations

import platform

from ldsnn_compiler.targets import Board, register_board

OLD_LAPTOP = register_board(
    Board(
        name="old-laptop",
        triple="x86_64-linux-gnu",
        cpu="haswell",
        features=("avx", "avx2", "bmi", "bmi2", "fma", "lzcnt", "movbe", "popcnt", "f16c"),
        cores=2,
        vector_bits=256,
        l1_kib=32,
        l2_kib=256,
        l3_kib=3072,
        doc="A dual-core Haswell laptop of 2014.",
    )
)


def main() -> None:
    import torch

    import ldsnn_compiler as ld
    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.ir.neuron import neuron
    from ldsnn_compiler.ir.types import Stream

    graph = Graph("small", base_timesteps=4)
    x = graph.add("input", type=Stream(4, 1, (8,)), name="x")
    cells = graph.add("neuron", [x.result], neuron=neuron("if"), path="cells")
    graph.add("output", [cells.result])
    compiled = ld.compile(graph, target="old-laptop")
    if platform.machine() == "x86_64" and not OLD_LAPTOP.missing():
        print("spikes:", int(compiled(torch.rand(4, 1, 8)).sum()))
    print("compiled for", OLD_LAPTOP.name, "with", OLD_LAPTOP.lanes(), "lanes of float32")


if __name__ == "__main__":
    main()
