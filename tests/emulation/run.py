"""Runs bundles where there is no PyTorch, on the emulated machine: ``python run.py CASE ...``.

A case is a folder with ``net.ldsnn`` and ``inputs.npz`` (arrays ``0``, ``1``, ...: ``[T, N, *shape]``). It gets
``found.npz``: outputs of the whole run (``run/0``), of each granule (``step 3/0``) and the state after it
(``state 3/node/variable``); or ``refused.txt``, what the loader said. Without ``net.ldsnn`` the network is one of
several in the library ``../net.so``, its entries numbered as its folder is (:mod:`emulation.together`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.runtime import light
from ldsnn_compiler.runtime.interface import Interface
from ldsnn_compiler.runtime.library import Library

Arrays = list[npt.NDArray[np.float32]]


class Part(light.Light):
    """One of several networks in a library."""

    number = ""

    def _invoke(self, entry: str, given: Sequence[Any]) -> list[Any]:
        return super()._invoke(f"{entry}_{self.number}", given)


def part(case: Path, batch: int) -> Part:
    """The network of that folder."""
    import tvm

    interface = Interface.of_json(json.loads((case / light.INTERFACE).read_text()))
    numbered = {f"{entry}_{case.name}": names for entry, names in interface.arguments.items()}
    arguments = load((case / light.ARGUMENTS).read_bytes())
    net = Part(replace(interface, arguments=numbered), batch, 1, library(case.parent / "net.so"), arguments, tvm.cpu())
    net.number = case.name
    return net


@cache
def library(path: Path) -> Library:
    """Loaded once for all."""
    return Library(content=path.read_bytes())


def everything(net: light.Light, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """All that a network says of these inputs."""
    found = {f"run/{i}": y for i, y in enumerate(net.run(*inputs))}
    each = [net.interface.steps(port) for port in net.interface.inputs]
    for k in range(inputs[0].shape[0] // each[0]):
        outputs = net.step(*(x[k * s : (k + 1) * s] for x, s in zip(inputs, each, strict=True)))
        found |= {f"step {k}/{i}": y for i, y in enumerate(outputs)}
        found |= {f"state {k}/{node}/{name}": v for node, vs in net.state.items() for name, v in vs.items()}
    return found


def main(case: Path) -> None:
    """One case."""
    with np.load(case / "inputs.npz") as stored:
        inputs = [stored[str(i)] for i in range(len(stored.files))]
    bundle = case / "net.ldsnn"
    try:
        net = light.load(bundle) if bundle.exists() else part(case, inputs[0].shape[1])
    except LdsnnError as error:
        (case / "refused.txt").write_text(str(error))
    else:
        np.savez(case / "found.npz", **everything(net, inputs))


if __name__ == "__main__":
    assert "torch" not in sys.modules
    for name in sys.argv[1:]:
        main(Path(name))
