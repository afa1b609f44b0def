"""``--numerics int`` and what goes with it, for all commands that compile; ``ldsnn quantize``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ldsnn_compiler.cli.common import (
    Answer,
    Calibrate,
    Convert,
    Data,
    Dt,
    Model,
    ScheduleFile,
    Sequence,
    Shape,
    Timesteps,
    note,
)
from ldsnn_compiler.cli.models import ModelOptions, needed_data, open_data, open_graph
from ldsnn_compiler.errors import LdsnnError, Problem

if TYPE_CHECKING:
    from ldsnn_compiler.data import Data as Samples
    from ldsnn_compiler.ir.graph import Graph

Numerics = Annotated[
    Literal["fp32", "int"] | None,
    typer.Option("--numerics", help="int: whole numbers, equal on every target; needs --data or --calibration"),
]
CalibrationFile = Annotated[
    Path | None, typer.Option("--calibration", help="of --numerics int: ranges of real inputs, from `ldsnn quantize`")
]
WeightBits = Annotated[
    int | None, typer.Option("--weight-bits", min=2, max=16, help="of --numerics int; default 8, from 9 on in int16")
]
SAMPLES = 500
"""Calibration samples that ranges are read off."""


@dataclass(frozen=True)
class NumericsOptions:
    """What the command line says of numbers; by default nothing."""

    numerics: str | None = None
    calibration: Path | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        given = {"--calibration": self.calibration, "--weight-bits": self.weight_bits}
        if self.numerics != "int" and (wrong := [name for name, value in given.items() if value is not None]):
            raise LdsnnError([Problem("needs --numerics int", where=name) for name in wrong])

    def arguments(self, graph: Graph, data: Samples | None) -> dict[str, Any]:
        """What ``compile`` takes: ranges of real inputs come from the file or else from the data."""
        found: dict[str, Any] = {"numerics": self.numerics, "calibration": self.calibration}
        if self.numerics == "int" and self.calibration is None and data is not None and graph.numerics != "int":
            found["calibration"] = seen(graph, data)
        return {**found, "weight_bits": self.weight_bits}


def seen(graph: Graph, data: Samples) -> Any:
    """Ranges of the network's inputs in the calibration split."""
    from ldsnn_compiler.evaluate import full_layout
    from ldsnn_compiler.integers import calibrate

    return calibrate(graph, full_layout(graph, data.calibration[0][:SAMPLES]))


def quantize(
    model: Model,
    data: Data = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="default NAME.calibration.json")] = None,
    weight_bits: WeightBits = None,
    schedule: ScheduleFile = None,
    timesteps: Timesteps = None,
    dt: Dt = None,
    convert: Convert = False,
    calibrate: Calibrate = None,
    shape: Shape = None,
    sequence: Sequence = False,
) -> Answer:
    """Read the ranges of a model's real inputs off data, for --calibration, and prove what its whole numbers need: per
    layer weights, scales, worst sums and their margins."""
    from ldsnn_compiler.passes.assign_timesteps import with_schedule
    from ldsnn_compiler.passes.quantize import with_numerics
    from ldsnn_compiler.pipeline import default_pipeline, parse_pipeline, run_pipeline
    from ldsnn_compiler.proofs import layer_proofs, table
    from ldsnn_compiler.schedule import Schedule

    data = needed_data(data, "quantize")
    graph = open_graph(ModelOptions(model, timesteps, convert, data, shape, sequence, calibrate, dt))
    given = open_data(data, graph)
    assert given is not None
    calibration, path = seen(graph, given), output or Path(f"{graph.name}.calibration.json")
    chosen = Schedule.read(schedule) if schedule is not None else None
    passes = with_schedule(parse_pipeline(default_pipeline(stage=graph.stage)), chosen)
    passes = with_numerics(passes, graph, "int", calibration, weight_bits)
    names = [each.name for each in passes]
    run_pipeline(graph, passes[: names.index("quantize") + 1])
    calibration.write(path)
    note(f"wrote {path}")
    proofs = layer_proofs(graph)
    found = {"calibration": str(path), "layers": [proof.to_json() for proof in proofs]}
    return Answer(found, (table(proofs),))
