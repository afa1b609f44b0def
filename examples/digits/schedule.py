"""Choose the per-layer timesteps that ship with the demo, on the calibration split only.

    OMP_NUM_THREADS=1 python examples/digits/schedule.py [--drop 0.0] [--out ldsnn_compiler/demo/schedule.json]

Three neuron layers with five candidates each are few enough to try them all with the interpreter: binary spikes, every
combination of 16, 8, 4, 2, 1 timesteps. Of the schedules whose accuracy is at most ``--drop`` below that of uniform
T = 16, the one with the fewest synaptic updates and neuron evaluations together is kept. Prints what it tried that no
other schedule beats in both accuracy and work. The report split is not looked at.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from ldsnn_compiler.demo.data import digits_data
from ldsnn_compiler.demo.model import digits_model
from ldsnn_compiler.demo.run import SCHEDULE
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

CANDIDATES = (16, 8, 4, 2, 1)
BEFORE = "canonicalize,fold-batchnorm,fold-scale"
AFTER = "commute-resample,drop-dead-timesteps,canonicalize,dead-code"


@dataclass(frozen=True)
class Trial:
    """A schedule and what it gives: accuracy in 0..1, work (synaptic updates plus neuron evaluations) per sample."""

    schedule: Schedule
    accuracy: float
    work: float


def with_timesteps(graph: Graph, timesteps: tuple[int, ...]) -> Schedule:
    """Binary spikes; leaky neurons run their original steps on the held current (``micro``), the others are closed."""
    layers = {}
    for (path, node), steps in zip(neuron_layers(graph).items(), timesteps, strict=True):
        method = "closed" if node["neuron"].template == "if" else "micro"
        layers[path] = LayerSchedule(steps, 1, method)
    return Schedule(graph.base_timesteps, layers)


def try_schedule(folded: Graph, schedule: Schedule, x: Tensor, y: Tensor) -> Trial:
    """Apply a schedule to the folded graph and run the split through the interpreter."""
    graph = folded.clone()
    run_pipeline(graph, (AssignTimesteps.of(schedule), *parse_pipeline(AFTER)))
    outputs, counter = count_work(graph, x[None])
    totals = counter.totals()
    accuracy = float((outputs[0][-1].argmax(1) == y).float().mean())
    return Trial(schedule, accuracy, totals["synaptic_updates"] + totals["neurons_evaluated"])


def frontier(trials: list[Trial]) -> list[Trial]:
    """The trials that no other beats in both accuracy and work, by work."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.work, -t.accuracy)):
        if not kept or trial.accuracy > kept[-1].accuracy:
            kept.append(trial)
    return kept


def steps_of(schedule: Schedule) -> list[int]:
    """Timesteps of the layers, in order."""
    return [layer.timesteps for layer in schedule.layers.values()]


def main() -> None:
    """Try, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drop", type=float, default=0.0, help="accuracy that may be lost on the calibration split")
    parser.add_argument("--out", type=Path, default=SCHEDULE)
    options = parser.parse_args()
    x, y = (torch.from_numpy(part) for part in digits_data()["calibration"])
    folded = trace(digits_model(), x[:1])
    run_pipeline(folded, parse_pipeline(BEFORE))
    layers = len(neuron_layers(folded))
    trials = [try_schedule(folded, with_timesteps(folded, t), x, y) for t in product(CANDIDATES, repeat=layers)]
    uniform = next(t for t in trials if set(steps_of(t.schedule)) == {CANDIDATES[0]})
    chosen = min((t for t in trials if t.accuracy >= uniform.accuracy - options.drop), key=lambda t: t.work)
    for name, trial in [("uniform", uniform), *(("", t) for t in frontier(trials)), ("chosen", chosen)]:
        print(f"{name:8} T={steps_of(trial.schedule)!s:14} {trial.accuracy:.2%} work {trial.work / 1e3:8.1f} k")
    chosen.schedule.write(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
