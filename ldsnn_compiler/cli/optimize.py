"""``ldsnn optimize``: choose timesteps and levels for every neuron layer."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Calibrate,
    Convert,
    Data,
    Dt,
    Model,
    Sequence,
    Shape,
    Target,
    Timesteps,
    note,
)
from ldsnn_compiler.cli.models import ModelOptions, needed_data, open_data, open_graph

if TYPE_CHECKING:
    from ldsnn_compiler.search.optimize import Result

Budget = Annotated[float, typer.Option("--budget", min=0.0, max=1.0, help="accuracy that may be lost, 0.005 = 0.5 pp")]
Spikes = Annotated[str, typer.Option("--spikes", help="binary, graded, or both (two searches)")]
CostName = Annotated[
    str,
    typer.Option("--cost", help="what to minimise: synaptic, neurons, work (both) or latency (kernels measured here)"),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="database URL or journal file in which the search is resumed and shared; `none` keeps nothing. "
        "Default: SQLite beside the output",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="of random starts; the same seed gives the same schedule")]
Out = Annotated[Path, typer.Option("-o", "--output", help="schedule file; report.json is written beside it")]
Hold = Annotated[list[str] | None, typer.Option("--hold", help="path of a layer to leave as it is; repeatable")]
Uneven = Annotated[
    bool, typer.Option("--uneven", help="also ranges between halvings, and for closed forms ratios that are not whole")
]
Ranges = Annotated[
    int, typer.Option("--ranges", min=0, help="halvings of the range of binary spikes, for layers that fire seldom")
]
Reads = Annotated[
    list[int] | None,
    typer.Option("--reads", help="timesteps on which binary layers may read their input; repeatable"),
]
Samples = Annotated[int, typer.Option("--samples", min=1, help="calibration samples that sensitivity is measured on")]
Verify = Annotated[
    int | None, typer.Option("--verify", min=1, help="calibration samples that schedules are verified on; default all")
]
EngineName = Annotated[
    str, typer.Option("--engine", help="what runs candidates: interpreter, compiled, or auto (compiled if large)")
]
Refine = Annotated[
    int, typer.Option("--refine", min=0, help="schedules that Optuna's TPE may try after the knapsack; 0: none")
]
Recalibrate = Annotated[
    bool,
    typer.Option(
        "--recalibrate",
        help="rows after recalibrating thresholds, biases and membranes, without labels; the networks are written too",
    ),
]
Match = Annotated[
    bool, typer.Option("--match", help="also search for what is as good (by divergence) as the best uniform schedule")
]
Agreement = Annotated[
    bool, typer.Option("--agreement", help="judge by agreement with the original network, labels or not")
]
Caution = Annotated[float, typer.Option("--caution", min=0.0, help="standard errors added to a drop in the search")]


def optimize(
    model: Model,
    data: Data = None,
    budget: Budget = 0.005,
    spikes: Spikes = "binary",
    cost: CostName = "synaptic",
    target: Target = "native",
    storage: Storage = None,
    seed: Seed = 0,
    output: Out = Path("schedule.json"),
    hold: Hold = None,
    uneven: Uneven = False,
    ranges: Ranges = 0,
    reads: Reads = None,
    samples: Samples = 256,
    verify: Verify = None,
    engine: EngineName = "auto",
    caution: Caution = 0.5,
    refine: Refine = 0,
    recalibrate: Recalibrate = False,
    match: Match = False,
    agreement: Agreement = False,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Choose timesteps, levels and method per layer; write the schedule and report.json. A killed search resumes."""
    from ldsnn_compiler.search.optimize import Effort
    from ldsnn_compiler.search.optimize import optimize as search

    data = needed_data(data, "optimize")
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    given = open_data(data, graph)
    assert given is not None
    output.parent.mkdir(parents=True, exist_ok=True)  # now, not when the search is over
    where = None if storage == "none" else storage or f"sqlite:///{output.with_suffix('.search.db')}"
    result = search(
        graph, given, budget, spikes=spikes, cost=cost, target=target, storage=where, seed=seed, hold=hold or (),
        uneven=uneven, ranges=ranges, reads=reads or (), caution=caution,
        refine=refine, recalibrate=recalibrate, match=match, agreement=agreement, progress=Ticker(),
        effort=Effort(samples=samples, verified=verify, engine=engine),
    )  # fmt: skip
    files = _written(result, output)
    said = [*_timed(result), f"per layer: {result.statement}", f"written: {', '.join(map(str, files))}"]
    return Answer(
        {**result.report.to_json(), "files": [str(f) for f in files]}, (result.report.table(), "\n".join(said))
    )


def _timed(result: Result) -> list[str]:
    """A line for every schedule whose latency was measured: the model's word, and the whole network's."""
    return [
        f"{name}: {each['measured_ms']:.3g} ms measured, {each['modelled_ms']:.3g} ms modelled ({each['error']:+.0%})"
        for name, each in result.report.details["latency"].items()
    ]


def _written(result: Result, output: Path) -> list[Path]:
    """The schedule asked for, those of other modes beside it, recalibrated networks, and the report."""
    import json

    from ldsnn_compiler.ir.store import write_atomically, write_graph

    files = {output: result.schedule.text()}
    for name, schedule in result.schedules.items():
        if schedule is not result.schedule:
            files[_beside(output, name, ".json")] = schedule.text()
    files[output.with_name("report.json")] = json.dumps(result.report.to_json(), indent=2) + "\n"
    for path, text in files.items():
        write_atomically(path, text.encode())
    networks = {_beside(output, name, ".recalibrated.ldir"): graph for name, graph in result.networks.items()}
    for path, graph in networks.items():
        write_graph(graph, path)
    return [*files, *networks]


def _beside(output: Path, row: str, suffix: str) -> Path:
    """Where what belongs to another row than the headline's goes: schedule.graded.json for ``per layer, graded``."""
    kind = ".".join(row.split(", ")[1:])
    return output.with_suffix(f".{kind}{suffix}")


class Ticker:
    """Progress on stderr: one line that changes on a terminal, else a line now and then."""

    def __init__(self, every: float = 5.0) -> None:
        self._every, self._last, self._phase = every, 0.0, ""

    def __call__(self, phase: str, done: int, total: int, left: float | None) -> None:
        text = f"{phase}: {done} of {total}" + ("" if not left else f", {_duration(left)} left")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif done == total or phase != self._phase or time.monotonic() - self._last >= self._every:
            note(text)
            self._last = time.monotonic()
        self._phase = phase


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
