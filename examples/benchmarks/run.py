"""Choose schedules for the benchmark networks, and rebuild the table from the result files.

    export LDSNN_DATA=.../data
    python examples/benchmarks/run.py all             # everything: searches, latencies, the table
    python examples/benchmarks/run.py resnet20        # one network; writes results/schedules/resnet20.json
    python examples/benchmarks/run.py all --latency   # only latencies, anew, of the schedules in the result files
    python examples/benchmarks/run.py --table         # only the table of all result files, in README.md beside them

Every search runs twice, for binary and for graded spikes, on data that the report does not contain; each again for
schedules that diverge from the original no more than the best uniform one ("matched"). They weigh synaptic updates and
neuron evaluations alike. Rows are as found and recalibrated. A killed search goes on where it was if ``--storage`` is
given. Ratios are against uniform T0, exactly optimised.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldsnn_compiler.bench.report import rewritten
from ldsnn_compiler.cli.models import ModelOptions, open_graph, open_module
from ldsnn_compiler.cli.optimize import Ticker
from ldsnn_compiler.data import Data, load_data
from ldsnn_compiler.driver import compile
from ldsnn_compiler.evaluate import measured_density
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_atomically
from ldsnn_compiler.results import measure, wilson
from ldsnn_compiler.schedule import LayerSchedule, Schedule
from ldsnn_compiler.search.evaluate import Evaluator, as_input
from ldsnn_compiler.search.latency import LatencyModel
from ldsnn_compiler.search.optimize import ORIGINAL, RECALIBRATED, UNIFORM, Effort, optimize
from ldsnn_compiler.targets.boards import board

EXAMPLES = Path(__file__).resolve().parents[1]
RESULTS = EXAMPLES.parent / "results" / "schedules"


@dataclass(frozen=True)
class Benchmark:
    """A network: how it is read, as on the command line (paths within ``examples``), and how it is judged.

    ``agreement``: by agreement with the original at T0, where the official test set is too small to tell accuracies
    apart; ``test`` is its size, and the first so many samples of the report split are it.
    """

    model: str
    data: str
    effort: Effort
    timesteps: int | None = None
    convert: bool = False
    sequence: bool = False
    calibrate: str | None = None
    budget: float = 0.005
    caution: float = 0.5
    agreement: bool = False
    test: int | None = None
    uneven: bool = False
    ranges: int = 0
    reads: tuple[int, ...] = ()
    recalibrate: bool | tuple[str, ...] = True
    match: bool = True
    refine: int = 0
    among: Callable[[str, LayerSchedule], bool] | None = None

    @property
    def options(self) -> ModelOptions:
        """The MODEL argument and its options."""
        return ModelOptions(
            str(EXAMPLES / self.model), self.timesteps, self.convert, str(EXAMPLES / self.data),
            sequence=self.sequence, calibrate=self.calibrate,
        )  # fmt: skip


def _few_frames(spikes: str, layer: LayerSchedule) -> bool:
    """Few settings of few timesteps: of 340 frames, each takes seconds to try in one layer. Binary spikes worth 1.2
    to 4 of the original's; counts of some levels."""
    if spikes == "binary":
        return 34 <= layer.timesteps <= 170 and 1.2 <= 340 / layer.timesteps * layer.range <= 4
    levels = {17: (20,), 10: (8, 16, 34)}
    return layer.method == "closed" and layer.levels in levels.get(layer.timesteps, ())


def _counts(spikes: str, layer: LayerSchedule) -> bool:
    """Graded spikes of the whole range: they have levels instead."""
    return spikes == "binary" or layer.range == 1


def _in_four_or_one(spikes: str, layer: LayerSchedule) -> bool:
    """Binary spikes of layers that read their input on 4 timesteps; graded ones of one timestep."""
    return layer.reads == 4 < layer.timesteps if spikes == "binary" else layer.timesteps == 1


BENCHMARKS: Mapping[str, Benchmark] = {
    "mnist_cnn": Benchmark(
        "benchmarks/mnist_cnn.py:mnist_cnn", "benchmarks/mnist_cnn.py:mnist",
        Effort(samples=512, engine="compiled"),
        timesteps=32, convert=True, caution=2.0, uneven=True, ranges=1, reads=(1,),
    ),
    "fashion_lif": Benchmark(
        "benchmarks/fashion_lif.py:fashion_lif", "benchmarks/fashion_lif.py:fashion",
        Effort(samples=512, engine="compiled"),
        timesteps=16, ranges=2, reads=(2, 1),
    ),
    "resnet20": Benchmark(
        "resnet20/model.py:resnet20", "resnet20/model.py:cifar10",
        Effort(samples=256, verified=1000, width=6, rounds=2, moves=1, repairs=0, engine="compiled"),
        timesteps=64, convert=True, calibrate="bias=true", caution=2.0, uneven=True, reads=(4,),
        recalibrate=("binary",), among=_in_four_or_one,
    ),
    "nmnist_scnn": Benchmark(
        "benchmarks/nmnist_scnn.py:nmnist_scnn", "benchmarks/nmnist_scnn.py:nmnist",
        Effort(samples=200, moves=2, repairs=0, engine="compiled", cheaper=16),
        budget=0.01, caution=0.0, agreement=True, test=100, uneven=True, ranges=5,
        recalibrate=("graded",), among=_few_frames,
    ),
    "fsdd_lif": Benchmark(
        "benchmarks/fsdd_lif.py:fsdd_lif", "benchmarks/fsdd_lif.py:fsdd",
        Effort(samples=360, width=16, rounds=4, moves=24, patience=6, engine="interpreter"),
        sequence=True, budget=0.01, caution=3.5, agreement=True, test=300, uneven=True, ranges=4, refine=96,
        among=_counts,
    ),
}  # fmt: skip


def main() -> None:
    """Search, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}, or all")
    parser.add_argument("--spikes", default="both", choices=("binary", "graded", "both"))
    parser.add_argument("--storage", help="Optuna storage in which a search is resumed")
    parser.add_argument("--latency", action="store_true", help="only measure latencies, of schedules found before")
    parser.add_argument("--no-latency", action="store_true", help="measure none, on a machine that is busy")
    parser.add_argument("--table", action="store_true", help="write the table of all result files")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    names = list(BENCHMARKS) if options.names == ["all"] else options.names
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"no benchmark {', '.join(unknown)}; known are {', '.join(BENCHMARKS)}")
    for name in names:
        benchmark, path = BENCHMARKS[name], options.out / f"{name}.json"
        if options.latency:
            result = json.loads(path.read_text())
        else:
            result = run(benchmark, options.spikes, options.storage)
        if not options.no_latency:
            result["latency"] = latencies(benchmark, result["schedules"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        print(table({name: result}))
    if options.table or options.names == ["all"]:
        write_table(options.out)


def run(benchmark: Benchmark, spikes: str, storage: str | None) -> dict[str, Any]:
    """One benchmark's report, with date, the time it took, and what the source network itself does."""
    started = time.monotonic()
    graph, data = network(benchmark)
    found = optimize(
        graph,
        data,
        benchmark.budget,
        spikes=spikes,
        cost="work",
        storage=storage,
        uneven=benchmark.uneven,
        caution=benchmark.caution,
        ranges=benchmark.ranges,
        reads=benchmark.reads,
        recalibrate=benchmark.recalibrate,
        among=benchmark.among,
        refine=benchmark.refine,
        match=benchmark.match,
        agreement=benchmark.agreement,
        effort=benchmark.effort,
        progress=Ticker(every=20.0),
    )
    seconds = round(time.monotonic() - started, 1)
    x, y = data.report
    assert y is not None
    return {
        **found.report.to_json(),
        "date": date.today().isoformat(),
        "seconds": seconds,
        "evaluated": found.evaluated,
        "statement": found.statement,
        "test": on_test(benchmark.test or len(x), found.predictions, y.tolist()),
        "ann": ann_figures(open_module(benchmark.options)[0], x, y) if benchmark.convert else {},
        "latency": {},
        "effort": asdict(benchmark.effort),
    }


def network(benchmark: Benchmark) -> tuple[Graph, Data]:
    """The network as a graph, and its data."""
    data = load_data(benchmark.options.data or "")
    return open_graph(benchmark.options), replace(data, note=f"splits given by examples/{benchmark.data}")


def on_test(count: int, predictions: Mapping[str, tuple[int, ...]], labels: list[int]) -> dict[str, dict[str, Any]]:
    """Accuracy of every row on the official test set, the first ``count`` samples of the report split."""
    right = {name: sum(a == b for a, b in zip(p[:count], labels, strict=False)) for name, p in predictions.items()}
    return {n: {"samples": count, "accuracy": r / count, "accuracy_ci95": wilson(r, count)} for n, r in right.items()}


def latencies(
    benchmark: Benchmark, schedules: Mapping[str, Mapping[str, Any]], samples: int = 8, repeats: int = 40
) -> dict[str, dict[str, Any]]:
    """Milliseconds of every schedule's compiled network at batch 1, median over calls in turn with the others', and
    what the latency model says of it."""
    graph, data = network(benchmark)
    x = data.report[0][:samples]
    model, evaluator, calls, modelled = LatencyModel(board("native")), Evaluator(graph, x), {}, {}
    for name, layers in schedules.items():
        schedule = Schedule(graph.base_timesteps, {path: LayerSchedule(**layer) for path, layer in layers.items()})
        prepared, density = evaluator.prepare(schedule), measured_density(graph, x, schedule)
        modelled[name] = sum(model.latencies(prepared, evaluator.evaluate(schedule).nodes).values())
        compiled = compile(graph, schedule, "native", batch=1, density=density)
        bound = [compiled.bound(as_input(graph.inputs[0], each)) for each in x.split(1)]
        calls[name] = partial(_all, bound)
    found = {}
    for name, latency in measure(calls, repeats=repeats).items():
        measured = latency.median / len(x)
        found[name] = {
            "measured_ms": measured, "iqr_ms": latency.iqr / len(x), "modelled_ms": modelled[name],
            "error": modelled[name] / measured - 1, "threads": torch.get_num_threads(),
            "date": date.today().isoformat(),
        }  # fmt: skip
    return found


def _all(bound: list[tuple[Callable[..., object], tuple[object, ...]]]) -> None:
    for function, arguments in bound:
        function(*arguments)


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


def write_table(folder: Path) -> None:
    """The table of all result files into the ``README.md`` beside them, where the last one stands."""
    path = folder / "README.md"
    results = {each.stem: json.loads(each.read_text()) for each in sorted(folder.glob("*.json"))}
    write_atomically(path, rewritten(path.read_text(), table(results), str(path)).encode())


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of all result files, with ratios against uniform T0 and the paired drop from the original network."""
    lines = [
        "| network | row | sum of T | test accuracy | agreement | drop, pp (95 %) | synaptic updates | ratio "
        "| each spike | neurons | ratio | ms | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes = [
        f'Ratios are against "{UNIFORM}". The drop is from "{ORIGINAL}" on the report split.',
        '"Each spike": the ratio where every spike is an update, also where a synapse meets an average of several.',
    ]
    for name, result in results.items():
        lines += [_line(name, row, result) for row in result["rows"]]
        if ann := result["ann"]:
            for row, macs in (("source ANN (MACs)", "macs"), ("source ANN, zeros skipped (MACs)", "macs_nonzero")):
                lines.append(f"| {name} | {row} | | {ann['accuracy']:.2%} | | | {ann[macs] / 1e6:.3f} M | | | | | | |")
        effort = f"{result['evaluated']} evaluations, {result['seconds']:.0f} s, work counted on "
        effort += f"{result['data']['work_counted_on']} samples of the report split's {result['data']['report']}"
        judged = "accuracy" if result["data"]["labels"] else "agreement with the original"
        notes.append(f"{name}: {result['machine']}, {result['date']}, {effort}.")
        notes.append(f"{name}, binary, judged by {judged}: {result['statement']}.")
        notes += [_against(name, row, each) for row, each in result["against_best_uniform"].items()]
        alone = result.get("against_best_uniform_T", {})
        notes += [_against(name, row, each, "the best uniform T") for row, each in alone.items()]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def _line(name: str, row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    figures, test = result["figures"][row["name"]], result["test"][row["name"]]
    ratios, paired = figures["ratios"], figures["paired"]
    low, high = (100 * v for v in paired["drop_ci95"])
    synaptic = f"{row['synaptic_updates'] / 1e6:.3f} M | {ratios['synaptic_updates']:.2f}x"
    synaptic += f" | {ratios['synaptic_updates_weighted']:.2f}x"
    neurons = f"{row['neurons_evaluated'] / 1e3:.1f} k | {ratios['neurons_evaluated']:.2f}x"
    drop = f"{100 * paired['drop']:+.2f} ({low:+.2f} to {high:+.2f})"
    times = {n: each["measured_ms"] for n, each in result["latency"].items()}
    latency = " | "  # two empty cells
    if row["name"] in times:
        latency = f"{times[row['name']]:.3g} | {times[UNIFORM] / times[row['name']]:.2f}x"
    start = f"{name} | {row['name']} | {row['sum_timesteps']} | {test['accuracy']:.2%} | {row['agreement']:.2%}"
    return f"| {start} | {drop} | {synaptic} | {neurons} | {latency} |"


def _against(name: str, row: str, found: Mapping[str, Any], other: str = "the best uniform") -> str:
    """A searched row beside the best uniform schedule of its mode, or beside another."""
    low, high = (100 * v for v in found["drop_ci95"])
    ratios = found["ratios"]
    other += " recalibrated" if row.startswith(RECALIBRATED) else ""
    drop = f"{100 * found['drop']:+.2f} pp ({low:+.2f} to {high:+.2f}) below {other}"
    each = f"{ratios['synaptic_updates_weighted']:.2f}x where each spike is one"
    return f"{name}, {row}: {ratios['synaptic_updates']:.2f}x fewer synaptic updates ({each}), {drop}."


if __name__ == "__main__":
    main()
