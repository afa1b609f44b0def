"""What ``prepare`` leaves for ``run``: libraries, their arguments (each array once, compressed), and the network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldsnn_compiler.bench.network import SPECS, Layer, Network
from ldsnn_compiler.errors import LdsnnError, Problem
from ldsnn_compiler.ir.store import read_file
from ldsnn_compiler.runtime.interface import Interface

Array = npt.NDArray[Any]
INDEX, ARRAYS = "prepared.json", "arrays.npz"


@dataclass
class Entry:
    """One compiled network. ``arguments`` maps names to arrays; ``expected`` is the array of the interpreter's scores;
    ``probed``: every neuron layer is an output too. ``limits``: microseconds that functions on the device take at the
    least (:mod:`.limits`)."""

    name: str
    batch: int
    library: str
    interface: dict[str, Any]
    arguments: dict[str, str]
    timesteps: dict[str, int]
    expected: str
    probed: bool = False
    note: str = ""
    limits: dict[str, float] = field(default_factory=dict)


@dataclass
class Folder:
    """``arrays`` are keyed by the hash of their contents; ``libraries`` by file name. ``hashes``: of the libraries,
    once they are written."""

    target: str
    network: str
    timesteps: int
    density: float
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
            (path / name).write_bytes(content)
        stored: dict[str, Any] = dict(self.arrays)
        np.savez_compressed(path / ARRAYS, **stored)
        self.hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self.libraries.items()}
        index = {k: getattr(self, k) for k in ("target", "network", "timesteps", "density", "model", "about", "hashes")}
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LdsnnError(Problem(f"is not what prepare writes: {error}", where=str(path))) from None
    libraries = {e.library: read_file(path / e.library) for e in entries}
    found = Folder(**index, entries=entries, arrays=arrays, libraries=libraries)
    if changed := _changed(found):
        raise LdsnnError([Problem("is not what was prepared: copy it again", where=str(path / n)) for n in changed])
    return found


def _key(array: Array) -> str:
    return hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()


def _changed(folder: Folder) -> list[str]:
    """Files whose contents have other hashes than when they were written."""
    found = [n for n, c in folder.libraries.items() if hashlib.sha256(c).hexdigest() != folder.hashes.get(n)]
    return found + [ARRAYS] * any(_key(array) != key for key, array in folder.arrays.items())


def keep_network(folder: Folder, network: Network) -> None:
    """Store the network: weights, thresholds, images, and the spikes that it should give, a bit each."""
    small = {f"weight{i}": _small(layer.weight) for i, layer in enumerate(network.layers)}
    small["head"], small["images"] = _small(network.head), network.images.numpy()
    for i, layer in enumerate(network.layers):
        small[f"spikes{i}"] = np.packbits(network.spikes[i].numpy().astype(bool))
        if layer.mean is not None and layer.var is not None:
            small[f"mean{i}"], small[f"var{i}"] = layer.mean.numpy(), layer.var.numpy()
    small["thresholds"] = np.array([layer.threshold for layer in network.layers])
    folder.model = {name: folder.keep(array) for name, array in small.items()}
    folder.about["pools"] = [layer.pool for layer in network.layers]
    folder.about["spike_shapes"] = [list(s.shape) for s in network.spikes]


def network_of(folder: Folder) -> Network:
    """The inverse of :func:`keep_network`."""
    data: Mapping[str, Array] = {name: folder.arrays[key] for name, key in folder.model.items()}
    images = torch.from_numpy(data["images"])
    network = Network(SPECS[folder.network], folder.timesteps, folder.density, True, images)
    network.head = torch.from_numpy(data["head"]).float()
    for i, pool in enumerate(folder.about["pools"]):
        weight = torch.from_numpy(data[f"weight{i}"]).float()
        mean, var = (torch.from_numpy(data[f"{k}{i}"]) if f"{k}{i}" in data else None for k in ("mean", "var"))
        network.layers.append(Layer(weight, pool, mean, var, float(data["thresholds"][i])))
        shape = folder.about["spike_shapes"][i]
        bits = np.unpackbits(data[f"spikes{i}"], count=int(np.prod(shape)))
        network.spikes.append(torch.from_numpy(bits.reshape(shape)).float())
    return network


def _small(weight: torch.Tensor) -> Array:
    """Dyadic weights are small whole numbers."""
    whole: Array = weight.numpy().astype(np.int8)
    if not np.array_equal(whole.astype(np.float32), weight.numpy()):
        raise LdsnnError("the weights of this benchmark are whole numbers that fit a byte")
    return whole
