"""C bundles: a folder with a network as plain C, its object code, its weights, an example, and what it needs of memory.

.. code-block:: text

    net/
      NAME.h NAME.c NAME_kernels.o      the network: header, calls, kernels
      NAME_weights.bin NAME_weights.S   its weights, and what puts them inside a program
      main.c CMakeLists.txt             an example program, how to build it all
      example_input.bin example_output.bin
      README.md report.json             how to use it, how large it is
      manifest.json                     how it was compiled, sha256 of every other file
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.runtime.folder import header, write_folder, write_manifest
from ldsnn_compiler.targets.c.memory import ALIGNMENT
from ldsnn_compiler.targets.c.network import Network
from ldsnn_compiler.targets.c.objects import LIBM
from ldsnn_compiler.targets.c.program import Call

if TYPE_CHECKING:
    from ldsnn_compiler.runtime.compiled import Settings

FORMAT = "ldsnn C bundle"
VERSION = 1
#: how the types of outputs are printed: a conversion, and a cast to what it takes
_PRINTED = {"f": ("%.9g", ""), "i": ("%lld", "(long long)"), "u": ("%llu", "(unsigned long long)")}
_SEED = 0


@dataclass(frozen=True)
class CBundle:
    """A compiled network and how it was compiled; :meth:`save` writes the folder."""

    network: Network
    settings: Settings
    report: Mapping[str, Any]

    @property
    def graph(self) -> Graph:
        """The graph as it was lowered."""
        return self.network.graph

    def save(self, path: str | Path, example: Sequence[torch.Tensor] | None = None) -> None:
        """Write the folder; ``example`` are inputs ``[T, N, *shape]``, default are random numbers from 0 to 1.

        An older bundle at ``path`` is replaced, anything else there is left alone and refused.
        """
        files = self._files(example_inputs(self.network) if example is None else tuple(example))

        def fill(folder: Path) -> None:
            for name, content in files.items():
                (folder / name).write_bytes(content)
            write_manifest(folder, header(FORMAT, VERSION, self.network.graph, self.settings), files)

        write_folder(Path(path), fill)

    def _files(self, inputs: Sequence[torch.Tensor]) -> dict[str, bytes]:
        net = self.network
        return {
            **_texts(net),
            f"{net.name}_kernels.o": net.objects.content,
            f"{net.name}_weights.bin": net.weights_file(),
            "example_input.bin": _flat(inputs),
            "example_output.bin": _flat(_interpreted(net, inputs)),
            "report.json": (json.dumps(self.report, indent=1) + "\n").encode(),
        }


def memory_table(net: Network) -> list[dict[str, Any]]:
    """Rows (what, bytes, where) of the RAM and flash that a network needs."""
    code = net.objects.file
    external = sum(prod(p.shape) * np.dtype(p.dtype).itemsize for p in (*net.inputs, *net.outputs))
    ram, flash = "RAM, the context", "flash, or RAM if read from a file"
    rows = [
        ("context", net.context_bytes, "RAM, given by the caller: the sum of the next three"),
        ("- bookkeeping and padding", net.context_bytes - net.state_bytes - net.arena_bytes, ram),
        ("- state between steps", net.state_bytes, ram),
        ("- arena: data between kernels, their scratch memory", net.arena_bytes, ram),
        ("arrays of kernels on the stack, at most", net.objects.stack, "RAM, the stack"),
        ("inputs and outputs of a run", external, "RAM, given by the caller"),
        ("variables of kernels", code.bytes_of("data") + code.bytes_of("zeros"), "RAM"),
        ("weights", net.weights.size, flash),
        ("code of kernels", code.bytes_of("code"), "flash"),
        ("constants of kernels", code.bytes_of("constants"), "flash"),
    ]
    return [{"what": what, "bytes": size, "where": where} for what, size, where in rows]


def example_inputs(net: Network) -> tuple[torch.Tensor, ...]:
    """Random numbers from 0 to 1 for every input, the same ones every time."""
    generator = torch.Generator().manual_seed(_SEED)
    return tuple(torch.rand(p.shape, generator=generator) for p in net.inputs)


def _interpreted(net: Network, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    from ldsnn_compiler.interp.module import Interpreter

    with torch.no_grad():
        return tuple(Interpreter(net.graph).run(*inputs))


def _flat(tensors: Sequence[torch.Tensor]) -> bytes:
    return b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)


# ---- templates


def _texts(net: Network) -> dict[str, bytes]:
    """The files written from templates."""
    names = {
        "network.h.j2": f"{net.name}.h",
        "network.c.j2": f"{net.name}.c",
        "weights.S.j2": f"{net.name}_weights.S",
        "main.c.j2": "main.c",
        "CMakeLists.txt.j2": "CMakeLists.txt",
        "README.md.j2": "README.md",
    }
    values = _values(net)
    return {name: _rendered(template, values) for template, name in names.items()}


def _rendered(template: str, values: Mapping[str, Any]) -> bytes:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["product"] = prod
    text = files("ldsnn_compiler.targets.c").joinpath(template).read_text()
    return environment.from_string(text).render(values).encode()


def _values(net: Network) -> dict[str, Any]:
    from ldsnn_compiler import __version__

    calls = {name: [s for s in e.statements if isinstance(s, Call)] for name, e in net.entries.items()}
    every = [call for entry in calls.values() for call in entry]
    ports = [*((p, "const ") for p in net.inputs), *((p, "") for p in net.outputs)]
    return {
        "net": net,
        "upper": net.name.upper(),
        "version": __version__,
        "board": net.board.name,
        "triple": net.board.triple.replace("-unknown", ""),
        "alignment": ALIGNMENT,
        "granule": net.graph.granule,
        "identity": [f"0x{byte:02x}" for byte in net.weights_file()[: net.weights.identity_size]],
        "prototypes": {c.symbol: (c.reads, len(c.arguments) - c.reads) for c in every}.items(),
        "repeats": any(held.initial is not None for held in net.state),
        "reads_weights": {n: any(a.startswith("weights +") for c in e for a in c.arguments) for n, e in calls.items()},
        "declarations": ", ".join(f"{const}{port.c_type} *{port.parameter}" for port, const in ports),
        "arguments": ", ".join(port.parameter for port, _ in ports),
        "printed": sorted({(p.c_type, *_PRINTED[np.dtype(p.dtype).kind]) for p in net.outputs}),
        "needs_libm": bool(net.objects.file.undefined & LIBM),
        "needs": "".join(f", {name}" for name in sorted(net.objects.file.undefined & LIBM)),
        "memory": memory_table(net),
        "unshared": max(e.unshared for e in net.entries.values()),
    }
