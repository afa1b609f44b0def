"""Fine-tune a scheduled network: the digits demo with too few timesteps, trained on through the interpreter.

python examples/finetune.py [--epochs 2]

The interpreter is a ``torch.nn.Module`` whose parameters are the graph's weights; comparisons have surrogate gradients.
So a schedule that costs accuracy can be trained on as it will run: resampled currents, retimed neurons and all. The
weights go back into the graph, which is then compiled as usual. Training sees the training split only.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

import ldsnn_compiler as ld
from ldsnn_compiler.demo.data import digits_splits
from ldsnn_compiler.demo.model import digits_model
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule

BEFORE = "canonicalize,fold-batchnorm,fold-scale"
AFTER = "commute-resample,drop-dead-timesteps,canonicalize,dead-code"
PLACE = "select-kernels,fuse-timesteps"
STEPS = {
    "sn1": LayerSchedule(2, 1, "closed"),
    "sn2": LayerSchedule(1, 1, "closed"),
    "sn3": LayerSchedule(1, 1, "oneshot"),
}
"""Of 16 timesteps: far fewer than the demo's schedule keeps, one binary spike a step."""


def scheduled(graph: Graph) -> Graph:
    """The graph with the schedule applied, exactly optimised."""
    schedule = Schedule(graph.base_timesteps, STEPS)
    return run_pipeline(graph, (*parse_pipeline(BEFORE), AssignTimesteps.of(schedule), *parse_pipeline(AFTER)))


def accuracy(network: Interpreter, x: Tensor, y: Tensor) -> float:
    """Share of samples classified correctly."""
    with torch.no_grad():
        scores = network(x)
    assert isinstance(scores, Tensor)
    return float((scores.argmax(1) == y).float().mean())


def train(network: Interpreter, x: Tensor, y: Tensor, epochs: int, batch: int = 32) -> None:
    """Adam on shuffled batches, cross-entropy of the class scores."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(batch):
            scores = network(x[chosen])
            assert isinstance(scores, Tensor)
            optimizer.zero_grad()
            F.cross_entropy(scores, y[chosen]).backward()
            optimizer.step()


def main() -> None:
    """Trace, schedule, train, compile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    epochs = parser.parse_args().epochs
    splits = {name: tuple(map(torch.from_numpy, split)) for name, split in digits_splits().items()}
    (x, y), report = splits["train"], splits["report"]

    net = ld.trace(digits_model(), x[:1])
    original = accuracy(Interpreter(net), *report)
    network = Interpreter(scheduled(net))
    before = accuracy(network, *report)
    train(network, x, y, epochs)
    after = accuracy(network, *report)
    print(f"report split: original {original:.2%}, scheduled {before:.2%}, fine-tuned {after:.2%}")
    print(f"fine-tuning gained back accuracy: {after > before}")

    compiled = ld.compile(network.to_graph(), pipeline=PLACE, batch=None)
    with torch.no_grad():
        same = compiled(report[0]).argmax(1) == network(report[0]).argmax(1)
    print(f"compiled code answers like the fine-tuned network: {float(same.float().mean()):.1%}")


if __name__ == "__main__":
    main()
