"""Rows on the GPU: ours, from a prepared folder. A batch is the folder's images, repeated where they are fewer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from ldsnn_compiler.bench.gpu.folder import Entry, Folder
from ldsnn_compiler.bench.gpu.machine import Run
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.light import Light
from ldsnn_compiler.runtime.place import is_gpu, place_of
from ldsnn_compiler.targets.boards import Board


@dataclass(frozen=True)
class GpuRow:
    """``make(batch)`` gives ``run()``, which computes the class scores ``[N, classes]`` on the device.

    ``expected`` are the scores it must give for the folder's images, if that is known. ``timesteps`` by layer.
    ``needs_gpu``: there is nothing of it to rehearse elsewhere.
    """

    name: str
    make: Callable[[int], Run]
    timesteps: dict[str, int]
    expected: Tensor | None = None
    note: str = ""
    needs_gpu: bool = False


def ours(folder: Folder) -> list[GpuRow]:
    """A row for every variant that was prepared."""
    by_name: dict[str, dict[int, Entry]] = {}
    for entry in folder.entries:
        if not entry.probed:
            by_name.setdefault(entry.name, {})[entry.batch] = entry
    found = []
    for name, entries in by_name.items():
        first = next(iter(entries.values()))
        expected = torch.from_numpy(folder.arrays[first.expected])
        make = partial(_bound, folder, entries)
        found.append(GpuRow(name, make, first.timesteps, expected, first.note, needs_gpu(folder)))
    return found


def needs_gpu(folder: Folder) -> bool:
    """Whether our rows do: all but those for a board whose GPU is emulated."""
    return is_gpu(Board.of_json(folder.about["board"]))


def light(folder: Folder, entry: Entry) -> Light:
    """A prepared network, on the device."""
    place = place_of(Board.of_json(folder.about["board"]))
    library = Library(content=folder.libraries[entry.library])
    return Light(folder.interface(entry), entry.batch, 1, library, folder.arguments(entry), place)


def check_loads(folder: Folder, entry: Entry) -> None:
    """Load its library, GPU or not, and find the function that a row calls."""
    place_of(Board.of_json(folder.about["board"]))
    Library(content=folder.libraries[entry.library]).module["vm_load_executable"]().get_function("run")


def images(folder: Folder, batch: int) -> Tensor:
    """The first ``batch`` images, in turn again where they are fewer."""
    return repeated(torch.from_numpy(folder.arrays[folder.model["images"]]), batch)


def repeated(rows: Tensor, batch: int) -> Tensor:
    """``batch`` rows of a tensor, from the first on and in turn."""
    return rows[torch.arange(batch) % len(rows)]


def _bound(folder: Folder, entries: Mapping[int, Entry], batch: int) -> Run:
    function, arguments = light(folder, entries[batch]).bound(images(folder, batch).numpy())
    return lambda: from_dlpack(function(*arguments)[0])[0]
