"""See what each pass does: run the exact passes on a graph, dump the IR after each, and read one dump back.

python examples/inspect_dumps.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.pipeline import DumpIR, parse_pipeline, run_pipeline

PIPELINE = "canonicalize,fold-batchnorm,assign-timesteps,commute-resample,dead-code"


def network() -> Graph:
    """A static image repeated over eight steps, a convolution, an IF layer, and the mean of its spikes."""
    torch.manual_seed(0)
    graph = Graph("small", base_timesteps=8)
    x = graph.add("input", type=Stream(1, 8, (1, 6, 6)), time="static", name="x")
    held = graph.add("resample", [x.result], dt=1, mode="repeat")
    weight = graph.tensor("conv.weight", torch.randn(4, 1, 3, 3))
    conv = graph.add(
        "conv2d", [held.result], weight=weight, stride=(1, 1), padding=(1, 1), dilation=(1, 1), path="conv"
    )
    spikes = graph.add("neuron", [conv.result], neuron=neuron("if"), path="sn")
    rate = graph.add("readout", [spikes.result], mode="mean")
    graph.add("output", [rate.result], time="squeeze")
    return graph


def main(folder: Path) -> None:
    graph = network()
    run_pipeline(graph, parse_pipeline(PIPELINE), instruments=[DumpIR(folder)])
    for dump in sorted(folder.glob("*.ldir")):
        lines = [line for line in dump.read_text().splitlines() if line.startswith("%")]
        print(f"== {dump.name}", *lines, sep="\n")
    last = sorted(folder.glob("*.ldir"))[-1]
    print("read back:", len(parse_graph(last.read_text())), "nodes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
