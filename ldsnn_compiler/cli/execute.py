"""``ldsnn run`` and ``profile``: a model on data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Batch,
    Calibrate,
    Convert,
    Data,
    Dt,
    Limit,
    Model,
    Pipeline,
    Rpc,
    ScheduleFile,
    Sequence,
    Shape,
    Target,
    Threads,
    Timesteps,
    note,
    parse_batch,
)
from ldsnn_compiler.cli.compile import compile_graph
from ldsnn_compiler.cli.models import ModelOptions, kind_of, needed_data, open_data, open_graph, open_module
from ldsnn_compiler.cli.numerics import CalibrationFile, Numerics, NumericsOptions, WeightBits
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.results import Latency, Row
    from ldsnn_compiler.runtime import Compiled

ByInterpreter = Annotated[bool, typer.Option("--interpreter", help="run the graph, not compiled code")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="timed calls")]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="MODEL",
        help="the original, to agree with; --timesteps, --convert and --calibrate then say how to read it. Default: "
        "MODEL itself where that is file.py:factory, or a .ldir file that is given a --schedule",
    ),
]
Work = Annotated[
    bool, typer.Option("--work/--no-work", help="count work with the interpreter (slow on large networks)")
]


def run(
    model: Model,
    data: Data = None,
    interpreter: ByInterpreter = False,
    against: Against = None,
    work: Work = True,
    schedule: ScheduleFile = None,
    target: Target = "native",
    batch: Batch = "1",
    threads: Threads = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    sequence: Sequence = False,
    pipeline: Pipeline = None,
    limit: Limit = None,
    repeats: Repeats = 20,
    rpc: Rpc = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
) -> Answer:
    """Run a model on the report split: accuracy, agreement with the original model, work, latency."""
    from ldsnn_compiler.results import Report, machine_name

    size, data = parse_batch(batch), needed_data(data, "run")
    numbers = NumericsOptions(numerics, calibration, weight_bits)
    options = ModelOptions(model, timesteps, convert, data, None, sequence, calibrate, dt)
    original = replace(options, model=against or model)
    if against is not None and kind_of(model) != "factory":
        options = ModelOptions(model, data=data)
    asked = against is not None or (schedule is not None and kind_of(model) == "ldir")
    if interpreter:
        if rpc is not None:
            raise LdsnnError(Problem("boards run compiled code, not the interpreter", where="--rpc"))
        _use_threads(threads)
        graph = open_graph(options)
        _run_passes(graph, schedule, pipeline, numbers, data)
        x, y, said = samples(data, graph, limit)
        reference = _reference(original, x, graph, asked)
        found, used, board = [_interpreted(graph, x, y, reference)], _torch_threads(), "interpreter"
        kind = graph.numerics
    else:
        compiled = compiled_on(rpc, options, schedule, target, size, threads, pipeline, numbers)
        x, y, said = samples(data, compiled.graph, limit)
        reference = _reference(original, x, compiled.graph, asked)
        found = [_compiled_row(compiled, x, y, reference, work, repeats)]
        used, board, kind = compiled.settings.threads, compiled.settings.board.name, compiled.settings.numerics
    name = model.rpartition("/")[2]
    report = Report(name, board, kind, machine_name(), used, found, {"samples": len(x), "data": said})
    return Answer(report.to_json(), (report.table(), f"{len(x)} samples, {said}"))


def samples(data: str, graph: Graph, limit: int | None = None) -> tuple[Tensor, Tensor | None, str]:
    """The report split's samples and labels, and what to say of them."""
    given = open_data(data, graph)
    assert given is not None
    x, y = given.report
    return x[:limit], None if y is None else y[:limit], given.note


def _run_passes(graph: Graph, schedule: Path | None, pipeline: str | None, numbers: NumericsOptions, data: str) -> None:
    """What is asked for of schedule, passes and numbers; a graph is run as it is otherwise."""
    from ldsnn_compiler.cli.look import run_passes

    given = numbers.arguments(graph, open_data(data, graph))
    if schedule is not None or pipeline is not None or numbers.numerics is not None:
        run_passes(graph, pipeline, schedule, (), **given)


def _use_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def _interpreted(graph: Graph, x: Tensor, y: Tensor | None, reference: Tensor | None) -> Row:
    from ldsnn_compiler.evaluate import interpreted, row

    note(f"running {len(x)} samples with the interpreter")
    scores, counter = interpreted(graph, x)
    return row("interpreter", graph, scores, counter, y, reference)


def _compiled_row(
    compiled: Compiled, x: Tensor, y: Tensor | None, reference: Tensor | None, work: bool, repeats: int
) -> Row:
    from ldsnn_compiler.evaluate import compiled_scores, interpreted, row

    note(f"running {len(x)} samples")
    scores = compiled_scores(compiled, x)
    counter = interpreted(compiled.graph, x)[1] if work else None
    return row("ldsnn", compiled.graph, scores, counter, y, reference, _latency(compiled, x, repeats))


def _latency(compiled: Compiled, x: Tensor, repeats: int) -> Latency:
    """Of one call with a full batch (one sample where the batch is open); on a board without the way there."""
    from ldsnn_compiler.evaluate import full_layout, user_layout
    from ldsnn_compiler.results import Latency, measure

    filled = _filled(x, compiled.settings.batch or 1)
    if not compiled.device.is_here:
        _, arguments = compiled.bound(full_layout(compiled.graph, filled))
        return Latency(tuple(s * 1e3 for s in compiled.device.times(compiled.vm, "run", arguments, repeats)))
    one = user_layout(compiled.graph, filled)
    return measure({"call": lambda: compiled(one)}, repeats)["call"]


def _filled(x: Tensor, batch: int) -> Tensor:
    """The first ``batch`` samples, the data repeated if there are fewer."""
    return x.repeat(-(-batch // len(x)), *[1] * (x.ndim - 1))[:batch]


def _reference(original: ModelOptions, x: Tensor, graph: Graph, asked: bool) -> Tensor | None:
    """Scores of the original: of its graph if asked for, else of the PyTorch model where that runs all its timesteps in
    a call."""
    from ldsnn_compiler.evaluate import interpreted, module_scores

    if asked:
        note("running the original with the interpreter")
        return interpreted(open_graph(original), x)[0]
    if kind_of(original.model) != "factory":
        return None
    module, _ = open_module(original)
    if original.timesteps is not None and not original.convert and not hasattr(module, "timesteps"):
        return None
    return module_scores(module, x, graph)


def compiled_on(
    rpc: str | None, options: ModelOptions, schedule: Path | None, target: str, batch: int | None, threads: int | None,
    pipeline: str | None, numbers: NumericsOptions = NumericsOptions(),  # noqa: B008  (frozen)
) -> Compiled:  # fmt: skip
    """The bundle, or the model compiled now, here or on the board at ``rpc``."""
    from ldsnn_compiler.runtime.remote import connect

    device = connect(rpc) if rpc is not None else None  # before the long work
    if kind_of(options.model) == "bundle":
        from ldsnn_compiler.runtime import load

        given = {
            "--schedule": schedule is not None, "--pipeline": pipeline is not None, "--target": target != "native",
            "--batch": batch != 1, "--threads": threads is not None, "--timesteps": options.timesteps is not None,
            "--convert": options.convert, "--numerics": numbers.numerics is not None,
            "--calibration": numbers.calibration is not None, "--weight-bits": numbers.weight_bits is not None,
        }  # fmt: skip
        if any(given.values()):
            hint = "compile the model again"
            names = (name for name, is_given in given.items() if is_given)
            raise LdsnnError([Problem("a bundle is compiled already", where=name, hint=hint) for name in names])
        return load(options.model, device)
    graph = open_graph(options)
    compiled = compile_graph(graph, schedule, target, batch, threads, options.data, pipeline, numbers=numbers)
    return compiled if device is None else compiled.on(device)


def profile(
    model: Model,
    data: Data = None,
    schedule: ScheduleFile = None,
    target: Target = "native",
    batch: Batch = "1",
    threads: Threads = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    shape: Shape = None,
    sequence: Sequence = False,
    pipeline: Pipeline = None,
    repeats: Repeats = 20,
    rpc: Rpc = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
) -> Answer:
    """Say where the time goes: per region time, density, synaptic updates and neurons evaluated, on the first
    samples."""
    from ldsnn_compiler.evaluate import user_layout

    size, data = parse_batch(batch), needed_data(data, "profile")
    options = ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt)
    numbers = NumericsOptions(numerics, calibration, weight_bits)
    compiled = compiled_on(rpc, options, schedule, target, size, threads, pipeline, numbers)
    x, _, _ = samples(data, compiled.graph)
    one = user_layout(compiled.graph, _filled(x, compiled.settings.batch or 1))
    found = compiled.profile(one, repeats=repeats)
    whole = f"a call of batch {compiled.settings.batch or 1}: {found.latency_ms:.3f} ms, "
    whole += f"interquartile range {found.latency_ms_iqr:.3f} ms, {compiled.settings.threads} threads"
    return Answer({"model": model, **found.to_json()}, (_regions(found), _layers(found), whole))


def _regions(found: Any) -> Any:
    from rich.table import Table

    table = Table(title="regions")
    for title in ("region", "module", "kernel", "ms", "share", "nodes"):
        table.add_column(title, justify="right" if title in ("ms", "share") else "left")
    total = sum(r.ms for r in found.regions) or 1.0
    for r in found.regions:
        table.add_row(r.name, r.path, r.kernel, f"{r.ms:.4f}", f"{r.ms / total:.1%}", " ".join(r.nodes))
    return table


def _layers(found: Any) -> Any:
    from rich.table import Table

    from ldsnn_compiler.results import amount

    table = Table(title="layers, per sample")
    for title in ("node", "op", "T", "density", "input density", "synaptic updates", "neurons"):
        table.add_column(title, justify="left" if title in ("node", "op") else "right")
    for x in found.layers:
        shares = (f"{x['density']:.1%}", f"{x['input_density']:.1%}")
        work = (amount(x["synaptic_updates"] or None), amount(x["neurons_evaluated"] or None))
        table.add_row(x["name"], x["op"], str(x["timesteps"]), *shares, *work)
    return table
