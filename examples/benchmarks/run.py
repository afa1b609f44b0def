"""Choose schedules for the benchmark networks, and rebuild the table from the result files.

    export LDSNN_DATA=.../data
    python examples/benchmarks/run.py mnist_cnn resnet20      # searches; writes results/schedules/NAME.json
    python examples/benchmarks/run.py --table                 # the table of all result files, as Markdown

Every search runs twice, for binary and for graded spikes, on training images, and reports on all test images, as found
and recalibrated. A killed one goes on where it was if ``--storage`` is given. Ratios are against uniform T0, exactly
optimised.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldsnn_compiler.cli.optimize import Ticker
from ldsnn_compiler.data import call_factory, load_data
from ldsnn_compiler.frontend import convert
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.results import wilson
from ldsnn_compiler.schedule import LayerSchedule, Schedule
from ldsnn_compiler.search.evaluate import Evaluator, as_input
from ldsnn_compiler.search.latency import LatencyModel
from ldsnn_compiler.search.optimize import UNIFORM, Effort, optimize
from ldsnn_compiler.targets.boards import board

EXAMPLES = Path(__file__).resolve().parents[1]
RESULTS = EXAMPLES.parent / "results" / "schedules"


@dataclass(frozen=True)
class Benchmark:
    """A network that is converted: its factories, T0, and how much of the search is done."""

    model: str
    data: str
    timesteps: int
    effort: Effort
    calibration: int = 2000


BENCHMARKS: Mapping[str, Benchmark] = {
    "mnist_cnn": Benchmark(
        "benchmarks/mnist_cnn.py:mnist_cnn", "benchmarks/mnist_cnn.py:mnist", 32,
        Effort(
            samples=256, counted=32, verified=2000, counted_compiled=250, width=6, rounds=2, moves=6, patience=2,
            engine="compiled",
        ),
    ),
    "resnet20": Benchmark(
        "resnet20/model.py:resnet20", "resnet20/model.py:cifar10", 64,
        Effort(samples=256, counted=16, verified=1000, counted_compiled=64, engine="compiled"),
    ),
}  # fmt: skip


def main() -> None:
    """Search, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--spikes", default="both", choices=("binary", "graded", "both"))
    parser.add_argument("--budget", type=float, default=0.005)
    parser.add_argument("--storage", help="Optuna storage in which a search is resumed")
    parser.add_argument("--no-latency", action="store_true", help="measure none, on a machine that is busy")
    parser.add_argument("--table", action="store_true", help="print the table of all result files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            sys.exit(f"no benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
        result = run(BENCHMARKS[name], options.spikes, options.budget, options.storage, not options.no_latency)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(table({name: result}))
    if options.table:
        files = sorted(options.out.glob("*.json"))
        print(table({path.stem: json.loads(path.read_text()) for path in files}))


def run(benchmark: Benchmark, spikes: str, budget: float, storage: str | None, latency: bool = True) -> dict[str, Any]:
    """One benchmark's report, with date, the time it took, and what the source network itself does."""
    ann = call_factory(str(EXAMPLES / benchmark.model))
    data = replace(load_data(str(EXAMPLES / benchmark.data)), note=f"splits given by examples/{benchmark.data}")
    name = benchmark.model.rpartition(":")[2]
    started = time.monotonic()
    graph = convert(ann, data.calibration[0][: benchmark.calibration], benchmark.timesteps, name=name)
    found = optimize(
        graph, data, budget, spikes=spikes, storage=storage, recalibrate=True, effort=benchmark.effort,
        progress=Ticker(every=20.0),
    )  # fmt: skip
    seconds = round(time.monotonic() - started, 1)
    x, y = data.report
    assert y is not None
    return {
        **found.report.to_json(),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "evaluated": found.evaluated,
        "statement": found.statement,
        "ann": ann_figures(ann, x, y),
        "latency": latencies(graph, found.report.details["schedules"], x) if latency else {},
        "busy": not latency,
        "effort": asdict(benchmark.effort),
    }


def latencies(
    graph: Graph, schedules: Mapping[str, Mapping[str, Any]], x: Tensor, samples: int = 8
) -> dict[str, dict[str, float]]:
    """Milliseconds at batch 1 of every schedule's compiled network, and what the latency model says of it."""
    model, evaluator = LatencyModel(board("native")), Evaluator(graph, x[:samples])
    found = {}
    for name, layers in schedules.items():
        schedule = Schedule(graph.base_timesteps, {path: LayerSchedule(**layer) for path, layer in layers.items()})
        densities = {node: work.density for node, work in evaluator.evaluate(schedule).nodes.items()}
        check = model.check(evaluator.prepare(schedule), densities, as_input(graph.inputs[0], x[:samples]))
        found[name] = {"measured_ms": check.measured_ms, "modelled_ms": check.modelled_ms, "error": check.error}
    return found


def ann_figures(ann: nn.Module, x: Tensor, y: Tensor, counted: int = 1000) -> dict[str, Any]:
    """The source network on the report split: accuracy, and multiply-accumulates per sample with and without those
    whose input is zero (on the first ``counted`` samples)."""
    with torch.no_grad():
        right = int(sum((ann(a).argmax(1) == b).sum() for a, b in zip(x.split(500), y.split(500), strict=True)))
        sums = {"macs": 0.0, "macs_nonzero": 0.0}
        hooks = [
            m.register_forward_pre_hook(_count(sums)) for m in ann.modules() if isinstance(m, nn.Conv2d | nn.Linear)
        ]
        for batch in x[:counted].split(100):
            ann(batch)
        for hook in hooks:
            hook.remove()
    macs = {name: value / min(counted, len(x)) for name, value in sums.items()}
    return {"accuracy": right / len(x), "accuracy_ci95": wilson(right, len(x)), **macs}


def _count(sums: dict[str, float]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that adds up multiply-accumulates."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for name, x in (("macs", torch.ones_like(inputs[0])), ("macs_nonzero", (inputs[0] != 0).float())):
            if isinstance(module, nn.Conv2d):
                weight = torch.ones_like(module.weight)
                y = F.conv2d(x, weight, None, module.stride, module.padding, module.dilation, module.groups)  # type: ignore[arg-type]
            else:
                y = F.linear(x, torch.ones_like(module.weight))  # type: ignore[arg-type]
            sums[name] += float(y.sum(dtype=torch.float64))

    return hook


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of all result files, with ratios against uniform T0 and the paired drop from the original network."""
    lines = [
        "| network | row | sum of T | accuracy | drop, pp (95 %) | synaptic updates | ratio | neurons | ratio | ms |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes = [f'Ratios are against "{UNIFORM}".']
    for name, result in results.items():
        times = result["latency"]
        lines += [
            _line(name, row, result["figures"][row["name"]], times.get(row["name"], {})) for row in result["rows"]
        ]
        ann = result["ann"]
        for row, macs in (("source ANN (MACs)", "macs"), ("source ANN, zeros skipped (MACs)", "macs_nonzero")):
            lines.append(f"| {name} | {row} | | {ann['accuracy']:.2%} | | {ann[macs] / 1e6:.3f} M | | | | |")
        effort = f"{result['evaluated']} evaluations, {result['seconds']:.0f} s"
        effort += " beside other work" if result["busy"] else ""
        effort += f", work counted on {result['data']['work_counted_on']} images of the report split"
        notes.append(f"{name}: {result['machine']}, {result['date']}, {effort}; binary: {result['statement']}.")
    return "\n".join([*lines, "", *notes, ""])


def _line(name: str, row: Mapping[str, Any], figures: Mapping[str, Any], time: Mapping[str, float]) -> str:
    ratios, paired = figures["ratios"], figures["paired"]
    low, high = (100 * v for v in paired["drop_ci95"])
    synaptic = f"{row['synaptic_updates'] / 1e6:.3f} M | {ratios['synaptic_updates']:.2f}x"
    neurons = f"{row['neurons_evaluated'] / 1e3:.1f} k | {ratios['neurons_evaluated']:.2f}x"
    drop = f"{100 * paired['drop']:+.2f} ({low:+.2f} to {high:+.2f})"
    latency = f"{time['measured_ms']:.3g}" if time else ""
    start = f"| {name} | {row['name']} | {row['sum_timesteps']} | {row['accuracy']:.2%}"
    return f"{start} | {drop} | {synaptic} | {neurons} | {latency} |"


if __name__ == "__main__":
    main()
