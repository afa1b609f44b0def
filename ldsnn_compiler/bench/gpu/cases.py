"""What is compiled for the benchmark: a network, the images it runs on, and the rows that are made of it.

``built`` is one of the benchmark's own networks, of random dyadic weights, with a schedule that nothing was searched
for. ``searched`` is a network of the user's with the schedules of a result file, as ``examples/benchmarks/run.py``
writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldsnn_compiler.bench.gpu.folder import Folder, keep_graph, keep_network
from ldsnn_compiler.bench.network import Network, build
from ldsnn_compiler.bench.ours import graph_of
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.evaluate import as_input, interpreted, measured_density
from ldsnn_compiler.integers import Calibration, calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import parse_json, read_text
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

if TYPE_CHECKING:
    from ldsnn_compiler.cli.models import ModelOptions

#: samples on which densities and ranges are measured
CALIBRATION_IMAGES = 16
#: what PyTorch's rows are built from has been through these
FOLDED = "canonicalize,fold-batchnorm"


@dataclass(frozen=True)
class Variant:
    """A row of ours: ``kernel`` forces one kind wherever there is a choice (dense: on tensor cores where they fit),
    None leaves it to costs. ``probed``: its spikes are compared too."""

    name: str
    kernel: str | None = None
    numerics: str = "fp32"
    schedule: Schedule | None = None
    probed: bool = False


@dataclass(frozen=True)
class Case:
    """A network ``graph`` of one input, run on ``images`` ``[M, *shape]``.

    ``density(schedule)`` are the non-zero shares that kernels are chosen by. ``spikes`` ``[T, N, *shape]`` by layer are
    there if PyTorch has computed them; else the interpreter tells them. ``settings`` are for the result's caption.
    ``keep`` stores what rows of others are built from.
    """

    name: str
    graph: Graph
    images: Tensor
    variants: tuple[Variant, ...]
    density: Callable[[Schedule | None], Mapping[str, float]]
    calibration: Calibration
    settings: Mapping[str, Any]
    keep: Callable[[Folder], None]
    spikes: tuple[Tensor, ...] | None = None


def built(network: str = "vgg16-cifar", timesteps: int = 8, density: float = 0.1) -> Case:
    """A network of the benchmark's own, on one image."""
    with torch.no_grad():
        made = build(network, timesteps, density, 1, dyadic=True)
    graph = graph_of(made)
    variants = (
        Variant("ldsnn_event", "event", probed=True),
        Variant("ldsnn_dense", "dense", probed=True),
        Variant("ldsnn_int", "event", numerics="int"),
        Variant("ldsnn_int_dense", "dense", numerics="int"),
        Variant("ldsnn_schedule", "event", schedule=falling(graph)),
    )
    return Case(
        network, graph, made.images, variants, lambda schedule: _rates(made), calibrate(graph, made.images[None]),
        {"timesteps": timesteps, "density": density}, partial(keep_network, network=made), tuple(made.spikes),
    )  # fmt: skip


def _rates(made: Network) -> dict[str, float]:
    return {path: layer.rate for path, layer in zip(made.paths, made.layers, strict=True)}


def falling(graph: Graph) -> Schedule:
    """A schedule for measuring only, nothing was searched: all timesteps on the largest maps, half as many on each
    smaller size, at least one."""
    layers = neuron_layers(graph)
    sizes = sorted({node.type.shape[1:] for node in layers.values()}, reverse=True)
    steps = {size: max(1, graph.base_timesteps >> i) for i, size in enumerate(sizes)}
    return Schedule(graph.base_timesteps, {p: LayerSchedule(steps[n.type.shape[1:]], 1) for p, n in layers.items()})


def searched(options: ModelOptions, results: Path, images: int = 64) -> Case:
    """A network under every schedule of a result file, in real numbers and in whole ones, on the first ``images`` of
    its report split; densities are measured on the calibration split."""
    from ldsnn_compiler.cli.models import needed_data, open_data, open_graph

    graph = open_graph(options)
    schedules = read_schedules(results, graph)
    data = open_data(needed_data(options.data, "prepare"), graph)
    assert data is not None
    seen, (x, y) = data.calibration[0][:CALIBRATION_IMAGES], data.report
    shown = x[:images].float()
    variants = tuple(
        Variant(f"{name}, {numerics}", None, numerics, schedule, probed=numerics == "fp32")
        for name, schedule in schedules.items()
        for numerics in ("fp32", "int")
    )
    settings = {"timesteps": graph.base_timesteps, "schedules": results.name, "images": len(shown)}
    return Case(
        results.stem, graph, shown, variants, _measured(graph, seen),
        calibrate(graph, as_input(graph.inputs[0], data.calibration[0])), settings,
        lambda folder: _keep(folder, graph, shown, None if y is None else y[:images]),
    )  # fmt: skip


def _measured(graph: Graph, x: Tensor) -> Callable[[Schedule | None], Mapping[str, float]]:
    found: dict[str, Mapping[str, float]] = {}

    def density(schedule: Schedule | None) -> Mapping[str, float]:
        key = schedule.text() if schedule else ""
        if key not in found:
            found[key] = measured_density(graph, x, schedule)
        return found[key]

    return density


def read_schedules(path: Path, graph: Graph) -> dict[str, Schedule]:
    """The schedules of a result file by row; an error lists all that is wrong with them."""
    data = parse_json(read_text(path), str(path))
    rows = data.get("schedules") if isinstance(data, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise LdsnnError(Problem("holds no schedules: a result of examples/benchmarks/run.py is asked for", str(path)))
    found, problems = {}, list[Problem]()
    for row, layers in rows.items():
        given = {"version": 1, "base_timesteps": graph.base_timesteps, "layers": layers}
        try:
            found[row] = Schedule.parse(json.dumps(given), f"{path}: {row}")
            found[row].check(graph)
        except LdsnnError as error:
            problems += error.problems
    if problems:
        raise LdsnnError(problems)
    return found


def _keep(folder: Folder, graph: Graph, images: Tensor, labels: Tensor | None) -> None:
    """The network with all its timesteps, BatchNorm folded, and the scores that it gives."""
    folded = graph.clone()
    run_pipeline(folded, parse_pipeline(FOLDED))
    keep_graph(folder, folded)
    folder.model["images"] = folder.keep(images.numpy())
    folder.model["scores"] = folder.keep(interpreted(folded, images)[0].numpy())
    if labels is not None:
        folder.model["labels"] = folder.keep(labels.numpy())
