"""Runs bundles where there is no PyTorch, on the emulated machine: ``python run.py CASE ...``.

A case is a folder with ``net.ldsnn`` and ``inputs.npz`` (arrays ``0``, ``1``, ...: ``[T, N, *shape]``). It gets
``found.npz``: outputs of the whole run (``run/0``), of each granule (``step 3/0``) and the state after it
(``state 3/node/variable``); or ``refused.txt``, what the loader said.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.runtime import light

Arrays = list[npt.NDArray[np.float32]]


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
    try:
        net = light.load(case / "net.ldsnn")
    except LdsnnError as error:
        (case / "refused.txt").write_text(str(error))
    else:
        np.savez(case / "found.npz", **everything(net, inputs))


if __name__ == "__main__":
    assert "torch" not in sys.modules
    for name in sys.argv[1:]:
        main(Path(name))
