"""The half that needs no GPU: the network calibrated, compiled for every row and batch size, and written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ldsnn_compiler.bench.gpu.folder import Entry, Folder, keep_network
from ldsnn_compiler.bench.gpu.limits import limits, measured
from ldsnn_compiler.bench.network import Network, build
from ldsnn_compiler.bench.ours import graph_of, with_probes
from ldsnn_compiler.driver import DEFAULT_PIPELINE, compile
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import Compiled
from ldsnn_compiler.runtime.light import arguments
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.targets.boards import Board, board

Tell = Callable[[str], None]
BATCHES = (1, 16, 256)


@dataclass(frozen=True)
class Variant:
    """A row of ours: ``kernel`` forces one kind wherever there is a choice (dense: on tensor cores where they fit);
    ``scheduled`` takes fewer timesteps where maps are small."""

    name: str
    kernel: str | None = None
    numerics: str = "fp32"
    scheduled: bool = False


VARIANTS = (
    Variant("ldsnn_event", "event"),
    Variant("ldsnn_dense", "dense"),
    Variant("ldsnn_int", "event", numerics="int"),
    Variant("ldsnn_int_dense", "dense", numerics="int"),
    Variant("ldsnn_schedule", "event", scheduled=True),
)


def prepare(
    path: Path,
    target: str | Board = "h100",
    network: str = "vgg16-cifar",
    timesteps: int = 8,
    density: float = 0.1,
    batches: Sequence[int] = BATCHES,
    tell: Tell = lambda text: None,
) -> Folder:
    """Compile every row for every batch size and write the folder that :func:`~.measure.run` takes."""
    tell(f"calibrating {network}")
    with torch.no_grad():
        made = build(network, timesteps, density, 1, dyadic=True)
    folder = Folder(board(target).name, network, timesteps, density)
    keep_network(folder, made)
    graph = graph_of(made)
    densities = {path: layer.rate for path, layer in zip(made.paths, made.layers, strict=True)}
    for variant in VARIANTS:
        for batch in batches:
            tell(f"compiling {variant.name}, batch {batch}")
            _add(folder, made, compiled(graph, made, variant, target, batch, densities), variant, batch)
        if not variant.scheduled and variant.numerics == "fp32":
            tell(f"compiling {variant.name} with its spikes as outputs")
            found = compiled(with_probes(graph), made, variant, target, 1, densities)
            _add(folder, made, found, variant, 1, is_probed=True)
    folder.write(path)
    return folder


def compiled(
    graph: Graph, network: Network, variant: Variant, target: str | Board, batch: int, density: Mapping[str, float]
) -> Compiled:
    """One row for one batch size."""
    kernel = f"select-kernels{{kernel={variant.kernel}}}" if variant.kernel else "select-kernels"
    return compile(
        graph,
        falling(graph) if variant.scheduled else None,
        target,
        batch=batch,
        pipeline=DEFAULT_PIPELINE.replace("select-kernels", kernel),
        density=density,
        numerics=variant.numerics if variant.numerics != "fp32" else None,
        calibration=calibrate(graph, network.images[None]) if variant.numerics == "int" else None,
    )


def falling(graph: Graph) -> Schedule:
    """A schedule for measuring only, nothing was searched: all timesteps on the largest maps, half as many on each
    smaller size, at least one."""
    layers = neuron_layers(graph)
    sizes = sorted({node.type.shape[1:] for node in layers.values()}, reverse=True)
    steps = {size: max(1, graph.base_timesteps >> i) for i, size in enumerate(sizes)}
    return Schedule(graph.base_timesteps, {p: LayerSchedule(steps[n.type.shape[1:]], 1) for p, n in layers.items()})


def _add(
    folder: Folder, network: Network, made: Compiled, variant: Variant, batch: int, is_probed: bool = False
) -> None:
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        file = Path(scratch) / "net.so"
        made.library.write(file)
        content = file.read_bytes()
    scores, density = measured(made.graph, network.images[None])
    name = f"lib-{variant.name}-{batch}{'-probed' if is_probed else ''}.so"
    folder.libraries[name] = content
    folder.about["board"] = made.settings.board.to_json()
    folder.entries.append(
        Entry(
            variant.name,
            batch,
            name,
            made.interface.to_json(),
            arguments={key: folder.keep(array) for key, array in arguments(made.interface, made.plans).items()},
            timesteps={path: node.type.timesteps for path, node in neuron_layers(made.graph).items()},
            expected=folder.keep(scores.float().numpy()),
            probed=is_probed,
            note=", ".join(dict.fromkeys(k.name for k in made.plans["run"].kernels)),
            limits=limits(made, batch, density),
        )
    )
