"""What ``prepare`` leaves for ``run``: libraries, their arguments (each array once), and the network, compressed."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldsnn_compiler.bench.network import SPECS, Layer, Network, logits
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.store import read_file
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.runtime.interface import Interface

Array = npt.NDArray[Any]
INDEX, ARRAYS = "prepared.json", "arrays.npz"


@dataclass
class Entry:
    """One compiled network. ``arguments`` maps names to arrays; ``expected`` is the array of the interpreter's scores
    of all images. ``probed``: every neuron layer is an output too, and ``spikes`` are the arrays of what those should
    give for the first image, as counts of ``units``. ``limits``: microseconds that functions on the device take at the
    least (:mod:`.limits`)."""

    name: str
    batch: int
    library: str
    interface: dict[str, Any]
    arguments: dict[str, str]
    timesteps: dict[str, int]
    expected: str
    probed: bool = False
    spikes: list[str] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    note: str = ""
    limits: dict[str, float] = field(default_factory=dict)


@dataclass
class Folder:
    """``arrays`` are keyed by the hash of their contents; ``libraries`` by name. ``hashes``: of the libraries, once
    they are written. ``settings``: what the network was made with. ``model``: the arrays of what other rows are built
    from; always ``images`` ``[M, *shape]`` and the ``scores`` ``[M, classes]`` that these rows should give, perhaps
    ``labels`` ``[M]``."""

    target: str
    network: str
    settings: dict[str, Any]
    entries: list[Entry] = field(default_factory=list)
    model: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    libraries: dict[str, bytes] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def batches(self) -> list[int]:
        """Batch sizes that are measured, in order."""
        return sorted({e.batch for e in self.entries if not e.probed})

    def keep(self, array: Array) -> str:
        """Store an array; its key."""
        given = np.ascontiguousarray(array)
        key = _key(given)
        self.arrays[key] = given
        return key

    def write(self, path: Path) -> None:
        """Write everything; the index last."""
        path.mkdir(parents=True, exist_ok=True)
        for name, content in self.libraries.items():
            (path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        stored: dict[str, Any] = dict(self.arrays)
        np.savez_compressed(path / ARRAYS, **stored)
        self.hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self.libraries.items()}
        index = {k: getattr(self, k) for k in ("target", "network", "settings", "model", "about", "hashes")}
        index["entries"] = [asdict(entry) for entry in self.entries]
        (path / INDEX).write_text(json.dumps(index, indent=1) + "\n")

    def interface(self, entry: Entry) -> Interface:
        """What its library takes and gives."""
        return Interface.of_json(entry.interface)

    def arguments(self, entry: Entry) -> dict[str, Array]:
        """Its arguments by name."""
        return {name: self.arrays[key] for name, key in entry.arguments.items()}


def read(path: Path) -> Folder:
    """The inverse of :meth:`Folder.write`."""
    try:
        index = json.loads(read_file(path / INDEX))
        entries = [Entry(**e) for e in index.pop("entries")]
        with np.load(path / ARRAYS, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        found = Folder(**index, entries=entries, arrays=arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LdsnnError(Problem(f"is not what prepare writes: {error}", where=str(path))) from None
    found.libraries = {e.library: _unpacked(read_file(path / f"{e.library}.gz")) for e in entries}
    if changed := _changed(found):
        raise LdsnnError([Problem("is not what was prepared: copy it again", where=str(path / n)) for n in changed])
    return found


def _unpacked(content: bytes) -> bytes:
    """A library; nothing, which no hash fits, where the file was changed."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return b""


def _key(array: Array) -> str:
    return hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()


def _changed(folder: Folder) -> list[str]:
    """Files whose contents have other hashes than when they were written."""
    found = [n for n, c in folder.libraries.items() if hashlib.sha256(c).hexdigest() != folder.hashes.get(n)]
    return found + [ARRAYS] * any(_key(array) != key for key, array in folder.arrays.items())


def keep_network(folder: Folder, network: Network) -> None:
    """Store one of the benchmark's own networks: weights, thresholds, images, and the scores that it should give."""
    small = {f"weight{i}": _small(layer.weight) for i, layer in enumerate(network.layers)}
    small["head"], small["images"] = _small(network.head), network.images.numpy()
    for i, layer in enumerate(network.layers):
        if layer.mean is not None and layer.var is not None:
            small[f"mean{i}"], small[f"var{i}"] = layer.mean.numpy(), layer.var.numpy()
    small["thresholds"] = np.array([layer.threshold for layer in network.layers])
    small["scores"] = logits(network, network.spikes[-1]).numpy()
    folder.model = {name: folder.keep(array) for name, array in small.items()}
    folder.about["pools"] = [layer.pool for layer in network.layers]


def network_of(folder: Folder) -> Network:
    """The inverse of :func:`keep_network`, without spikes."""
    data: Mapping[str, Array] = {name: folder.arrays[key] for name, key in folder.model.items()}
    images, settings = torch.from_numpy(data["images"]), folder.settings
    network = Network(SPECS[folder.network], settings["timesteps"], settings["density"], True, images)
    network.head = torch.from_numpy(data["head"]).float()
    for i, pool in enumerate(folder.about["pools"]):
        weight = torch.from_numpy(data[f"weight{i}"]).float()
        mean, var = (torch.from_numpy(data[f"{k}{i}"]) if f"{k}{i}" in data else None for k in ("mean", "var"))
        network.layers.append(Layer(weight, pool, mean, var, float(data["thresholds"][i])))
    return network


def keep_graph(folder: Folder, graph: Graph) -> None:
    """Store a network as its text and its tensors."""
    folder.about["graph"] = graph_text(graph)
    folder.about["tensors"] = {name: folder.keep(value.numpy()) for name, value in graph.tensors.items()}


def graph_in(folder: Folder) -> Graph | None:
    """The inverse of :func:`keep_graph`; None where the network is one of the benchmark's own."""
    if "graph" not in folder.about:
        return None
    tensors = {name: torch.from_numpy(folder.arrays[key]) for name, key in folder.about["tensors"].items()}
    return parse_graph(folder.about["graph"], tensors)


def keep_spikes(folder: Folder, entry: Entry, spikes: Sequence[torch.Tensor], units: Sequence[float]) -> None:
    """Store what the layers of a probed network should emit, as counts of a unit each."""
    counts = [(values / unit).round().numpy() for values, unit in zip(spikes, units, strict=True)]
    most = max((int(each.max(initial=0)) for each in counts), default=0)
    entry.spikes = [folder.keep(each.astype(np.uint8 if most < 256 else np.int32)) for each in counts]
    entry.units = list(units)


def _small(weight: torch.Tensor) -> Array:
    """Dyadic weights are small whole numbers."""
    whole: Array = weight.numpy().astype(np.int8)
    if not np.array_equal(whole.astype(np.float32), weight.numpy()):
        raise LdsnnError("the weights of this benchmark are whole numbers that fit a byte")
    return whole
