"""The half that needs no GPU: the network calibrated, compiled for every row and batch size, and written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ldsnn_compiler import driver
from ldsnn_compiler.bench.gpu.folder import Array, Entry, Folder, keep_network
from ldsnn_compiler.bench.gpu.limits import limits
from ldsnn_compiler.bench.network import build
from ldsnn_compiler.bench.ours import graph_of, with_probes
from ldsnn_compiler.integers import Calibration, calibrate
from ldsnn_compiler.interp.work import LayerWork, count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import ENTRIES, Settings
from ldsnn_compiler.runtime.interface import Interface
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.targets import build as codegen
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Plan

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


@dataclass(frozen=True)
class Setting:
    """What all rows share: the target, densities of values by module path, and the ranges of inputs."""

    target: str | Board
    density: Mapping[str, float]
    calibration: Calibration


@dataclass(frozen=True)
class Whole:
    """A network with code for whole runs only, none for steps, which is half of the work."""

    graph: Graph
    settings: Settings
    plan: Plan
    interface: Interface
    library: bytes

    def arguments(self) -> dict[str, Array]:
        """What the library is given beside inputs, by name."""
        return {k: self.plan.arguments[k]().contiguous().numpy() for k in self.plan.used_arguments()}


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
    graph, data = graph_of(made), made.images[None]
    densities = {path: layer.rate for path, layer in zip(made.paths, made.layers, strict=True)}
    setting = Setting(target, densities, calibrate(graph, data))
    for variant in VARIANTS:
        _add_row(folder, graph, data, variant, setting, batches, tell)
    folder.write(path)
    return folder


def _add_row(
    folder: Folder, graph: Graph, data: torch.Tensor, variant: Variant, setting: Setting, batches: Sequence[int],
    tell: Tell,
) -> None:  # fmt: skip
    """The row for every batch size; kernels differ, what they compute does not, so that one run tells what comes out
    and what there is to do. Of rows in real numbers one gives its spikes too."""
    expected, work = "", dict[str, LayerWork]()
    for batch in batches:
        tell(f"compiling {variant.name}, batch {batch}")
        made = compiled(graph, variant, setting, batch)
        if not expected:
            outputs, counter = count_work(made.graph, data)
            expected, work = folder.keep(outputs[0][-1].float().numpy()), counter.layers
        _add(folder, made, variant, batch, expected, work)
    if not variant.scheduled and variant.numerics == "fp32":
        tell(f"compiling {variant.name} with its spikes as outputs")
        _add(folder, compiled(with_probes(graph), variant, setting, 1), variant, 1, expected)


def compiled(graph: Graph, variant: Variant, setting: Setting, batch: int) -> Whole:
    """One row for one batch size."""
    kernel = f"select-kernels{{kernel={variant.kernel}}}" if variant.kernel else "select-kernels"
    made = driver.prepare(
        graph,
        falling(graph) if variant.scheduled else None,
        setting.target,
        batch=batch,
        pipeline=driver.DEFAULT_PIPELINE.replace("select-kernels", kernel),
        density=setting.density,
        numerics=variant.numerics if variant.numerics != "fp32" else None,
        calibration=setting.calibration if variant.numerics == "int" else None,
    )
    settings = made.settings
    plans = {entry: plan(made.graph, settings.board, entry, settings.tunings) for entry in ENTRIES}
    built = codegen.build([plans["run"]], settings.board, batch, settings.threads)
    interface = Interface.of(made.graph, plans)
    only = replace(interface, states=(), arguments={"run": interface.arguments["run"]})
    return Whole(made.graph, settings, plans["run"], only, _content(Library(built, board=settings.board)))


def falling(graph: Graph) -> Schedule:
    """A schedule for measuring only, nothing was searched: all timesteps on the largest maps, half as many on each
    smaller size, at least one."""
    layers = neuron_layers(graph)
    sizes = sorted({node.type.shape[1:] for node in layers.values()}, reverse=True)
    steps = {size: max(1, graph.base_timesteps >> i) for i, size in enumerate(sizes)}
    return Schedule(graph.base_timesteps, {p: LayerSchedule(steps[n.type.shape[1:]], 1) for p, n in layers.items()})


def _content(library: Library) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        file = Path(scratch) / "net.so"
        library.write(file)
        return file.read_bytes()


def _add(
    folder: Folder, made: Whole, variant: Variant, batch: int, expected: str,
    work: Mapping[str, LayerWork] | None = None,
) -> None:  # fmt: skip
    """Without ``work`` it is the one whose spikes are read."""
    machine, name = made.settings.board, f"lib-{variant.name}-{batch}{'-probed' if work is None else ''}.so"
    assert machine.gpu is not None
    folder.libraries[name] = made.library
    folder.about["board"] = machine.to_json()
    folder.entries.append(
        Entry(
            variant.name,
            batch,
            name,
            made.interface.to_json(),
            arguments={key: folder.keep(array) for key, array in made.arguments().items()},
            timesteps={path: node.type.timesteps for path, node in neuron_layers(made.graph).items()},
            expected=expected,
            probed=work is None,
            note=", ".join(dict.fromkeys(k.name for k in made.plan.kernels)),
            limits={} if work is None else limits(made.graph, made.plan, machine.gpu, batch, work),
        )
    )
