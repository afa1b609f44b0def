"""The half that needs no GPU: a network compiled for every row and batch size, and written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ldsnn_compiler import driver
from ldsnn_compiler.bench.gpu.cases import Case, Variant
from ldsnn_compiler.bench.gpu.folder import Array, Entry, Folder, keep_spikes
from ldsnn_compiler.bench.gpu.limits import limits
from ldsnn_compiler.bench.ours import with_probes
from ldsnn_compiler.evaluate import full_layout, interpreted
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.interp.work import LayerWork
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.compiled import ENTRIES, Settings
from ldsnn_compiler.runtime.interface import Interface
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.schedule import neuron_layers
from ldsnn_compiler.targets import build as codegen
from ldsnn_compiler.targets.boards import Board, board
from ldsnn_compiler.targets.lower import plan
from ldsnn_compiler.targets.plan import Plan

Tell = Callable[[str], None]
BATCHES = (1, 16, 256)


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
    case: Case,
    target: str | Board = "h100",
    batches: Sequence[int] = BATCHES,
    tell: Tell = lambda text: None,
) -> Folder:
    """Compile every row for every batch size and write the folder that :func:`~.measure.run` takes."""
    folder = Folder(board(target).name, case.name, dict(case.settings))
    case.keep(folder)
    for variant in case.variants:
        _add_row(folder, case, variant, target, batches, tell)
    folder.write(path)
    return folder


def _add_row(
    folder: Folder, case: Case, variant: Variant, target: str | Board, batches: Sequence[int], tell: Tell
) -> None:
    """The row for every batch size; kernels differ, what they compute does not, so that one run tells what comes out
    and what there is to do."""
    expected, work = "", dict[str, LayerWork]()
    for batch in batches:
        tell(f"compiling {variant.name}, batch {batch}")
        made = compiled(case, variant, target, batch)
        if not expected:
            scores, counter = interpreted(made.graph, case.images)
            expected, work = folder.keep(scores.float().numpy()), counter.layers
        _add(folder, made, variant, batch, expected, work)
    if variant.probed:
        tell(f"compiling {variant.name} with its spikes as outputs")
        made = compiled(replace(case, graph=with_probes(case.graph)), variant, target, 1)
        entry = _add(folder, made, variant, 1, expected)
        keep_spikes(folder, entry, *_spikes(case, made.graph))


def _spikes(case: Case, probed: Graph) -> tuple[Sequence[torch.Tensor], list[float]]:
    """What every layer of a probed network emits for the first image, ``[T, 1, *shape]``, and of which unit."""
    with torch.no_grad():
        _, *found = Interpreter(probed).run(full_layout(probed, case.images[:1]))
    units = [node.operands[0].type.signal.unit for node in probed.outputs[1:]]
    return found if case.spikes is None else [spikes[:, :1] for spikes in case.spikes], units


def compiled(case: Case, variant: Variant, target: str | Board, batch: int) -> Whole:
    """One row for one batch size."""
    kernel = f"select-kernels{{kernel={variant.kernel}}}" if variant.kernel else "select-kernels"
    made = driver.prepare(
        case.graph,
        variant.schedule,
        target,
        batch=batch,
        pipeline=driver.DEFAULT_PIPELINE.replace("select-kernels", kernel),
        density=case.density(variant.schedule),
        numerics=variant.numerics if variant.numerics != "fp32" else None,
        calibration=case.calibration if variant.numerics == "int" else None,
    )
    settings = made.settings
    plans = {entry: plan(made.graph, settings.board, entry, settings.tunings) for entry in ENTRIES}
    built = codegen.build([plans["run"]], settings.board, batch, settings.threads)
    interface = Interface.of(made.graph, plans)
    only = replace(interface, states=(), arguments={"run": interface.arguments["run"]})
    return Whole(made.graph, settings, plans["run"], only, _content(Library(built, board=settings.board)))


def _content(library: Library) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ldsnn-") as scratch:
        file = Path(scratch) / "net.so"
        library.write(file)
        return file.read_bytes()


def _add(
    folder: Folder, made: Whole, variant: Variant, batch: int, expected: str,
    work: Mapping[str, LayerWork] | None = None,
) -> Entry:  # fmt: skip
    """Without ``work`` it is the one whose spikes are read."""
    machine, what = made.settings.board, f"{variant.name}-{batch}{'-probed' if work is None else ''}"
    name = f"lib-{what.replace(', ', '-').replace(' ', '_')}.so"
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
    return folder.entries[-1]
