"""The demonstration: the digits network four ways, side by side, on images that neither training nor the schedule's
choice saw.

============================  =========================================================================================
PyTorch eager                 the SpikingJelly model as its users run it
naive uniform T               compiled with every op at all T timesteps and dense kernels
exactly optimised uniform T   compiled with all exact passes: the same spikes, less work
per-layer schedule            the same with the timesteps of ``schedule.json``, found by ``examples/digits/schedule.py``
============================  =========================================================================================

The network is traced from the SpikingJelly model. Where SpikingJelly is not installed, the traced graph that is kept
beside this file (``digits.ldir``) is read in its place and the first row is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldsnn_compiler.demo.data import digits_data
from ldsnn_compiler.driver import compile
from ldsnn_compiler.evaluate import compiled_scores, interpreted, measured_density, module_scores, row
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import read_graph
from ldsnn_compiler.pipeline.instruments import DumpIR
from ldsnn_compiler.results import Report, machine_name, measure
from ldsnn_compiler.schedule import Schedule

if TYPE_CHECKING:
    from ldsnn_compiler.interp.work import WorkCounter
    from ldsnn_compiler.runtime import Compiled

HERE = Path(__file__).parent
SCHEDULE, GRAPH, WEIGHTS = HERE / "schedule.json", HERE / "digits.ldir", HERE / "digits.safetensors"
NAIVE = "canonicalize,fold-batchnorm,fold-scale,assign-timesteps,dead-code,select-kernels{kernel=dense},fuse-timesteps"
"""Nothing moves in time: every op at all timesteps."""
DENSITY_SAMPLES = 50


@dataclass
class _Way:
    """One row in the making: how to run one sample, the scores of all, the work."""

    name: str
    graph: Graph
    scores: Tensor
    once: Callable[[], object]
    work: WorkCounter | None = None


@dataclass
class Demo:
    """What the demonstration made: the report and where things are."""

    report: Report
    bundle: Path
    dumps: Path
    notes: list[str] = field(default_factory=list)


def digits_graph() -> Graph:
    """The traced network, from the model if SpikingJelly is there, else as it was kept."""
    if find_spec("spikingjelly") is None:
        return read_graph(GRAPH, WEIGHTS)
    from ldsnn_compiler.demo.model import digits_model
    from ldsnn_compiler.frontend import trace

    return trace(digits_model(), torch.zeros(1, 1, 8, 8), name="digits")


def run_demo(
    out: Path = Path("out"), threads: int | None = None, repeats: int = 20, limit: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Demo:  # fmt: skip
    """Compile and run everything; writes the bundle and the IR dumps of the scheduled network under ``out``.

    Args:
        out: folder, made if need be.
        threads: CPU threads of every row, PyTorch's included; default all cores.
        repeats: timed calls of batch 1 per row, in turn.
        limit: only the first so many images of the report split.
        tell: is called with what happens next.
    """
    data = digits_data()
    x, y = (torch.from_numpy(part[:limit]) for part in data["report"])
    calibration = torch.from_numpy(data["calibration"][0][:DENSITY_SAMPLES])
    graph, dumps, bundle = digits_graph(), out / "digits-ir", out / "digits.ldsnn"
    if threads is not None:
        torch.set_num_threads(threads)
    ways, notes = _eager(graph, x, tell)
    schedule = Schedule.read(SCHEDULE)
    base = f"uniform T={graph.base_timesteps}"
    for name, pipeline, chosen in (
        (f"naive {base}", NAIVE, None),
        (f"exactly optimised {base}", None, None),
        ("per-layer schedule", None, schedule),
    ):
        tell(f"compiling and running: {name}")
        density = measured_density(graph, calibration, chosen)
        instruments = [DumpIR(dumps)] if chosen else []
        compiled = compile(graph, chosen, threads=threads, pipeline=pipeline, density=density, instruments=instruments)
        ways.append(_compiled_way(name, compiled, x))
    compiled.save(bundle)
    tell("timing one image at a time")
    times = measure({w.name: w.once for w in ways}, repeats)
    reference = ways[0].scores
    rows = [row(w.name, w.graph, w.scores, w.work, y, reference, times[w.name]) for w in ways]
    details: dict[str, Any] = {"samples": len(x), "bundle": str(bundle), "dumps": str(dumps), "schedule": str(SCHEDULE)}
    report = Report("digits", "native", "fp32", machine_name(), compiled.settings.threads, rows, details)
    return Demo(report, bundle, dumps, notes)


def _eager(graph: Graph, x: Tensor, tell: Callable[[str], None]) -> tuple[list[_Way], list[str]]:
    """The PyTorch row; its work is that of the graph as it was traced."""
    if find_spec("spikingjelly") is None:
        return [], ["no PyTorch row: SpikingJelly is not installed (pip install 'ldsnn-compiler[demo]')"]
    from ldsnn_compiler.demo.model import digits_model

    tell("running: PyTorch eager")
    model = digits_model()
    once = x[:1]
    scores, (_, work) = module_scores(model, x, graph), interpreted(graph, x)
    return [_Way("PyTorch eager", graph, scores, lambda: module_scores(model, once, graph), work)], []


def _compiled_way(name: str, compiled: Compiled, x: Tensor) -> _Way:
    once = x[:1]
    _, work = interpreted(compiled.graph, x)
    return _Way(name, compiled.graph, compiled_scores(compiled, x), lambda: compiled(once), work)
