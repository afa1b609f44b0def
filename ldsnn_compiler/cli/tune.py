"""``ldsnn tune``: measure loop structures of every region on a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Batch,
    Calibrate,
    Convert,
    Data,
    Dt,
    Model,
    Pipeline,
    Rpc,
    ScheduleFile,
    Sequence,
    Shape,
    Target,
    Threads,
    Timesteps,
    parse_batch,
)
from ldsnn_compiler.cli.compile import DENSITY_SAMPLES
from ldsnn_compiler.cli.execute import compiled_on
from ldsnn_compiler.cli.models import ModelOptions, open_data
from ldsnn_compiler.cli.numerics import CalibrationFile, Numerics, NumericsOptions, WeightBits
from ldsnn_compiler.cli.optimize import Ticker

if TYPE_CHECKING:
    from torch import Tensor

    from ldsnn_compiler.ir.graph import Graph
    from ldsnn_compiler.tuning.tune import Tuned

Trials = Annotated[int, typer.Option("--trials", min=1, help="loop structures to try of each region")]
Storage = Annotated[
    Path | None, typer.Option("--storage", help="SQLite file of measurements; default in the user's cache folder")
]
Entry = Annotated[
    Literal["run", "step"], typer.Option("--entry", help="what to tune: run (whole windows) or step (streaming)")
]
Seed = Annotated[int, typer.Option("--seed", help="of random places, where no small step helps")]


def tune(
    model: Model,
    trials: Trials = 32,
    storage: Storage = None,
    rpc: Rpc = None,
    entry: Entry = "run",
    schedule: ScheduleFile = None,
    target: Target = "native",
    batch: Batch = "1",
    threads: Threads = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    data: Data = None,
    shape: Shape = None,
    sequence: Sequence = False,
    pipeline: Pipeline = None,
    numerics: Numerics = None,
    calibration: CalibrationFile = None,
    weight_bits: WeightBits = None,
    seed: Seed = 0,
) -> Answer:
    """Time each region with other loop structures, and keep what is clearly faster: `ldsnn compile` uses it from then
    on. Results do not change. With --data at measured densities. A killed run goes on when it is repeated."""
    from ldsnn_compiler.tuning.tune import tune as search

    size = parse_batch(batch)
    options = ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt)
    numbers = NumericsOptions(numerics, calibration, weight_bits)
    network = compiled_on(rpc, options, schedule, target, size, threads, pipeline, numbers)
    found = search(
        network, *_samples(data, network.graph), trials=trials, storage=storage, entry=entry, seed=seed,
        progress=Ticker(),
    )  # fmt: skip
    return Answer({"model": model, **found.to_json()}, (_table(found), _said(found)))


def _samples(data: str | None, graph: Graph) -> list[Tensor]:
    """Calibration samples ``[T, N, *shape]`` to take densities from."""
    from ldsnn_compiler.evaluate import full_layout

    given = open_data(data, graph=graph)
    return [] if given is None else [full_layout(graph, given.calibration[0][:DENSITY_SAMPLES])]


def _table(found: Tuned) -> Any:
    from rich.table import Table

    table = Table(title="regions")
    for title in ("module", "calls", "density", "tried", "ms before", "ms after", "loops"):
        table.add_column(title, justify="left" if title in ("module", "loops") else "right")
    for row in found.rows:
        times = [f"{ms:.4f}" for ms in row.check.warm_ms] if row.check else ["", ""]
        region = row.region
        table.add_row(
            region.path, str(region.calls), f"{region.density:.1%}", f"{row.tried}", *times, _loops(row.tuning)
        )
    return table


def _loops(tuning: Any) -> str:
    """A loop structure in a few words; empty for that of the rules of thumb."""
    if tuning is None:
        return ""
    if tuning.launch:
        named = zip(("tile", "width", "rows", "splits", "times", "unroll", "matrices"), tuning.launch, strict=True)
        return ", ".join(f"{name} {n}" for name, n in named)
    order = f"{tuning.order} {tuning.words}" if tuning.order == "word" else tuning.order
    ahead = f", prefetch {tuning.prefetch}" if tuning.prefetch else ""
    return f"{order}, tile {tuning.tile[0]}x{tuning.tile[1]}, block {tuning.block}, {tuning.outer} outer{ahead}"


def _said(found: Tuned) -> str:
    measured = sum(row.measured for row in found.rows)
    won = sum(row.tuning is not None for row in found.rows)
    lines = [
        f"{measured} measured now, {won} of {len(found.rows)} regions faster with other loops",
        f"a call: {found.before.median:.3f} ms before, {found.after.median:.3f} ms after, the same bits",
        f"kept in {found.database}",
    ]
    return "\n".join(lines)
