"""A benchmark network under its per-layer schedules beside its ANN twin in ONNX Runtime, in one run.

    export LDSNN_DATA=.../data
    python examples/benchmarks/twins.py resnet20                     # writes results/resnet20-twins.json
    python examples/benchmarks/twins.py fashion_lif --numerics fp32

Ours are the schedules of ``results/schedules/NAME.json`` that lose at most 0.5 pp of the original's accuracy at T0; the
twin is the network that was converted, or one of the same layers trained with ReLU. Everything runs at batch 1 on the
same threads and images, timed in turn, by the library's own call alone: arguments bound, no Python between. Accuracies
are of all test images, by the very code that is timed. ONNX Runtime is calibrated on images of the calibration split.
For the fastest of our rows of each kind, a report says region by region where the time goes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from run import BENCHMARKS, EXAMPLES, RESULTS, Benchmark, network

from ldsnn_compiler.bench.ann import Twin, float_twin, int8_twin
from ldsnn_compiler.bench.run import use_threads, versions
from ldsnn_compiler.cli.models import open_module
from ldsnn_compiler.data import Data
from ldsnn_compiler.driver import compile
from ldsnn_compiler.evaluate import compiled_scores, measured_density, user_layout
from ldsnn_compiler.integers import Calibration, calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.results import Latency, Report, Row, machine_name, measure, wilson
from ldsnn_compiler.runtime import Compiled
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.search.criterion import Comparison
from ldsnn_compiler.search.evaluate import as_input, predictions_drop
from ldsnn_compiler.search.optimize import ORIGINAL

BUDGET = 0.005
CALIBRATION_IMAGES = 256
TWINS = {"fashion_lif": "benchmarks/fashion_ann.py:fashion_ann"}
"""Networks that were not converted: the factory of their twin."""


@dataclass(frozen=True)
class Entry:
    """A row to be timed: ``scores`` of samples ``[N, ...]``, and ``bound`` to one sample, the call that is timed."""

    name: str
    scores: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], Callable[[], object]]
    compiled: Compiled | None = None
    numerics: str = ""


def main() -> None:
    """Compile, time, classify, report, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(BENCHMARKS))
    parser.add_argument("--numerics", default="fp32", help="of our rows, comma-separated: fp32, int")
    parser.add_argument("--schedules", default="", help="rows, or schedule files, between semicolons")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200, help="rounds of timing")
    parser.add_argument("--samples", type=int, default=8, help="images that are timed")
    parser.add_argument("--images", type=int, help="test images that are classified; default all")
    parser.add_argument("--out", type=Path, help="default results/NAME-twins.json")
    options = parser.parse_args()
    benchmark, threads = BENCHMARKS[options.name], use_threads(options.threads)
    graph, data = network(benchmark)
    found, chosen = schedules(graph, options.name, options.schedules)
    kinds = options.numerics.split(",")
    entries = [ours(name, graph, data, s, kind, threads) for name, s in chosen.items() for kind in kinds]
    entries += theirs(options.name, benchmark, data, threads)
    report = compared(options.name, entries, data, options, found)
    path = options.out or RESULTS.parent / f"{options.name}-twins.json"
    write_atomically(path, (json.dumps(report.to_json(), indent=1) + "\n").encode())
    print(report.markdown(), regions_table(report.details["regions"]), f"wrote {path}", sep="\n")


# ---- rows


def schedules(graph: Graph, name: str, asked: str = "") -> tuple[dict[str, Any], dict[str, Schedule]]:
    """The network's result file, and schedules by row: those of its rows that are within the budget, or, asked for,
    other rows of it or schedule files."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {"schedules": {}}
    names = [name.strip() for name in asked.split(";") if name.strip()] or [
        row for row in found["schedules"]
        if "T0" not in row and found["figures"][row]["paired"]["drop"] <= BUDGET
    ]  # fmt: skip
    return found, {n: Schedule.read(n) if n.endswith(".json") else _of_row(graph, found, n) for n in names}


def _of_row(graph: Graph, found: Mapping[str, Any], row: str) -> Schedule:
    layers = {path: LayerSchedule(**layer) for path, layer in found["schedules"][row].items()}
    return Schedule(graph.base_timesteps, layers)


def ours(name: str, graph: Graph, data: Data, schedule: Schedule, numerics: str, threads: int) -> Entry:
    """Our network under a schedule."""
    x = data.calibration[0]
    density = measured_density(graph, x[:CALIBRATION_IMAGES], schedule)
    compiled = compile(
        graph, schedule, "native", batch=1, threads=threads, density=density, numerics=numerics,
        calibration=calibration(graph, x) if numerics == "int" else None,
    )  # fmt: skip

    def bound(sample: Tensor) -> Callable[[], object]:
        function, arguments = compiled.bound(as_input(graph.inputs[0], sample))
        return partial(function, *arguments)

    return Entry(f"{name}, {numerics}", lambda x: compiled_scores(compiled, x), bound, compiled, numerics)


def calibration(graph: Graph, x: Tensor) -> Calibration:
    """Ranges of the inputs on images of the calibration split."""
    return calibrate(graph, as_input(graph.inputs[0], x[:CALIBRATION_IMAGES]))


def theirs(name: str, benchmark: Benchmark, data: Data, threads: int) -> list[Entry]:
    """The twin in ONNX Runtime, float32 and int8."""
    x, module = data.calibration[0][:CALIBRATION_IMAGES], ann(name, benchmark)
    twins = {"ort_fp32": float_twin(module, x[:1], threads), "ort_int8": int8_twin(module, x, 1, threads)}
    return [Entry(row, partial(_each, twin), twin.bound, numerics=twin.note) for row, twin in twins.items()]


def ann(name: str, benchmark: Benchmark) -> nn.Module:
    """The ANN twin."""
    if name not in TWINS:
        return open_module(benchmark.options)[0]
    return open_module(replace(benchmark.options, model=str(EXAMPLES / TWINS[name])))[0]


def _each(twin: Twin, x: Tensor) -> Tensor:
    return torch.cat([twin(one) for one in x.split(1)])


# ---- report


def compared(
    name: str, entries: Sequence[Entry], data: Data, options: argparse.Namespace, found: Mapping[str, Any]
) -> Report:
    """Times of all rows in turn, then accuracies, then regions."""
    x, y = data.report
    assert y is not None
    samples = x[: options.samples].split(1)
    times = measure({e.name: partial(_all, [e.bound(s) for s in samples]) for e in entries}, options.repeats)
    answers = {e.name: e.scores(x[: options.images]).argmax(1) for e in entries}
    labels = y[: options.images]
    rows = [_row(e, times[e.name], len(samples), answers[e.name], labels) for e in entries]
    details = {
        "settings": {"batch": 1, **{k: v for k, v in vars(options).items() if k not in ("name", "out")}},
        "date": date.today().isoformat(),
        "versions": versions(),
        "accuracy_at_T0": found.get("test", {}).get(ORIGINAL),
        "notes": {e.name: e.numerics for e in entries},
        "integer_cost": integer_cost(answers, labels),
        "regions": {e.name: regions(e.compiled, samples) for e in fastest(entries, times) if e.compiled is not None},
    }
    return Report(name, "native", options.numerics, machine_name(), options.threads, rows, details)


def _all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _row(entry: Entry, latency: Latency, samples: int, answers: Tensor, labels: Tensor) -> Row:
    right = int((answers == labels).sum())
    layers = {} if entry.compiled is None else neuron_layers(entry.compiled.graph)
    return Row(
        entry.name,
        timesteps={path: node.type.timesteps for path, node in layers.items()},
        levels={path: node.type.signal.levels or 0 for path, node in layers.items()},
        accuracy=right / len(labels),
        accuracy_ci95=wilson(right, len(labels)),
        latency_ms=latency.median / samples,
        latency_ms_iqr=latency.iqr / samples,
    )


def integer_cost(answers: Mapping[str, Tensor], labels: Tensor) -> dict[str, Any]:
    """The paired drop of every integer row from its fp32 one, where both are there."""
    costs = {}
    for name, predicted in answers.items():
        exact = answers.get(f"{name.removesuffix(', int')}, fp32")
        if name.endswith(", int") and exact is not None:
            lost, won = predictions_drop(exact.tolist(), predicted.tolist(), labels.tolist())
            costs[name] = Comparison(len(labels), lost, won).to_json(0.003)
    return costs


def fastest(entries: Sequence[Entry], times: Mapping[str, Latency]) -> list[Entry]:
    """Our fastest row of each kind of numbers."""
    best: dict[str, Entry] = {}
    for e in sorted((e for e in entries if e.compiled), key=lambda e: times[e.name].median):
        best.setdefault(e.numerics, e)
    return list(best.values())


def regions(compiled: Compiled, samples: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Per region: how it computes, its mean time over the samples, the synaptic updates in it and nanoseconds each."""
    profiles = [compiled.profile(user_layout(compiled.graph, s), repeats=20) for s in samples]
    updates = {layer["name"]: mean(_layer(p, layer["name"]) for p in profiles) for layer in profiles[0].layers}
    found = []
    for i, region in enumerate(profiles[0].regions):
        ms, done = mean(p.regions[i].ms for p in profiles), sum(updates.get(n, 0.0) for n in region.nodes)
        found.append(
            {"region": region.path or region.name, "kernel": region.kernel, "microseconds": ms * 1e3,
             "synaptic_updates": done, "ns_per_update": ms * 1e6 / done if done else None}
        )  # fmt: skip
    return found


def _layer(profile: Any, name: str) -> float:
    return float(next(layer["synaptic_updates"] for layer in profile.layers if layer["name"] == name) or 0.0)


def regions_table(reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The regions of all rows that have them."""
    lines = []
    for row, found in reports.items():
        whole = sum(r["microseconds"] for r in found)
        lines += [f"{row}: {whole:.1f} us in kernels", "| region | kernel | us | share | updates | ns / update |"]
        lines += ["|---|---|---:|---:|---:|---:|"]
        for r in found:
            each = "" if r["ns_per_update"] is None else f"{r['ns_per_update']:.3f}"
            lines.append(f"| {r['region']} | {r['kernel']} | {r['microseconds']:.1f} | {r['microseconds'] / whole:.0%} "
                         f"| {r['synaptic_updates']:.3g} | {each} |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
