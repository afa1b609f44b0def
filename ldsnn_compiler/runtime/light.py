"""Running bundles without PyTorch: all that a board needs is numpy, safetensors, TVM's run time and this package.

.. code-block:: python

    from ldsnn_compiler.runtime import light

    net = light.load("net.ldsnn")  # compiled elsewhere for this board: ldsnn compile ... --target raspberry-pi-4
    y = net(x)                     # numpy in, numpy out; run, step, state and reset as on the machine that compiled it

With ``TVM_USE_RUNTIME_LIB=1`` in the environment TVM loads its run time alone, not its compiler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.runtime import threads
from ldsnn_compiler.runtime.folder import (
    FORMAT,
    VERSION,
    check_versions,
    code_versions,
    library_name,
    read_board,
    read_files,
    read_manifest,
    refuse,
)
from ldsnn_compiler.runtime.interface import Interface, Port
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.network import Network
from ldsnn_compiler.runtime.place import place_of
from ldsnn_compiler.targets.boards import Board

if TYPE_CHECKING:
    from ldsnn_compiler.targets.plan import Plan

INTERFACE, ARGUMENTS = "interface.json", "arguments.safetensors"
Arrays = npt.NDArray[Any]


def load(path: str | Path) -> Light:
    """Load a bundle; :class:`~ldsnn_compiler.errors.BundleError` says in one line why one is refused."""
    path = Path(path)
    manifest = read_manifest(path, FORMAT, VERSION)
    check_versions(path, manifest, code_versions())
    board = read_board(path, manifest, Board.missing)
    library = library_name(board.name)
    contents = read_files(path, manifest, (INTERFACE, ARGUMENTS, library))
    try:
        interface = Interface.of_json(json.loads(contents[INTERFACE]))
        given = load_arrays(contents[ARGUMENTS])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        refuse(path, f"its contents cannot be read: {str(error).splitlines()[0]}")
    place = place_of(board)
    code = Library(content=contents[library])
    return Light(interface, manifest["batch"], manifest["threads"], code, given, place)


def write(folder: Path, interface: Interface, plans: Mapping[str, Plan]) -> tuple[str, ...]:
    """Write what :func:`load` reads beside manifest and library; the names of the files."""
    (folder / INTERFACE).write_text(json.dumps(interface.to_json(), indent=1) + "\n")
    (folder / ARGUMENTS).write_bytes(save_arrays(arguments(interface, plans)))
    return INTERFACE, ARGUMENTS


def arguments(interface: Interface, plans: Mapping[str, Plan]) -> dict[str, Arrays]:
    """All that a library is given beside inputs, by name: weights, parameters, and states before the first step."""
    made = {name: plan.arguments[name]() for plan in plans.values() for name in plan.used_arguments()}
    made |= {held.key: state.initial(1) for held, state in zip(interface.states, plans["step"].states, strict=True)}
    return {name: x.contiguous().numpy() for name, x in made.items()}


class Light(Network[Arrays]):
    """A compiled network over numpy arrays; see :class:`~ldsnn_compiler.runtime.network.Network`."""

    def __init__(
        self,
        interface: Interface,
        batch: int | None,
        threads: int,
        library: Library,
        arguments: Mapping[str, Arrays],
        place: Any,
    ) -> None:
        """``arguments`` by the names that ``interface`` has, and the states' initial values by theirs; ``place`` is
        TVM's device."""
        from tvm.runtime.vm import VirtualMachine

        self.interface, self.batch, self.threads, self.place = interface, batch, threads, place
        machine = VirtualMachine(library.module, place)
        self._functions = {entry: machine[entry] for entry in interface.arguments}
        put = {name: self._put(arguments[name]) for names in interface.arguments.values() for name in names}
        self._arguments = {entry: [put[name] for name in names] for entry, names in interface.arguments.items()}
        self._initials = [arguments[held.key] for held in interface.states]
        self.reset()

    def bound(self, *inputs: Arrays) -> tuple[Any, tuple[Any, ...]]:
        """The library's function and all its arguments for a whole run, for timing without Python around it."""
        given = self._whole(inputs)
        return self._functions["run"], (*map(self._put, given), *self._arguments["run"])

    def _given(self, x: Any, port: Port) -> Arrays:
        if not isinstance(x, np.ndarray):
            raise LdsnnError(Problem(f"expected a numpy array, found {type(x).__name__}", where=port.where))
        if x.dtype != np.float32:
            raise LdsnnError(Problem(f"expected float32 data, found {x.dtype}", where=port.where))
        return x

    def _put(self, x: Arrays) -> Any:
        import tvm

        # its memory is aligned as generated code needs it
        return tvm.runtime.tensor(np.ascontiguousarray(x), self.place)

    def _get(self, x: Any) -> Arrays:
        found: Arrays = x.numpy()
        return found

    def _own(self, x: Arrays, dtype: str) -> Arrays:
        return np.array(x, dtype, order="C")

    def _joined(self, parts: Sequence[Arrays]) -> Arrays:
        return np.concatenate(parts)

    def _initial(self, index: int, batch: int) -> Arrays:
        return np.repeat(self._initials[index], batch, self.interface.states[index].axis)

    def _counter(self, base_step: int) -> Any:
        return self._put(np.array([base_step], np.int32))

    def _invoke(self, entry: str, given: Sequence[Any]) -> list[Any]:
        threads.use(self.threads)
        return list(self._functions[entry](*given, *self._arguments[entry]))
