"""Rows on the GPU: ours from a prepared folder, and PyTorch's and SpikingJelly's built from the same network.

Everything may use TF32 and cuDNN's search: weights and spikes of this benchmark have few bits, so that this rounds
nothing. A batch is one image repeated, so that every sample has the densities that thresholds were set for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from ldsnn_compiler.bench.gpu.folder import Entry, Folder
from ldsnn_compiler.bench.gpu.machine import Run
from ldsnn_compiler.bench.modules import TorchNet, relu_module, spikingjelly_module
from ldsnn_compiler.bench.network import Network, logits
from ldsnn_compiler.runtime.library import Library
from ldsnn_compiler.runtime.light import Light
from ldsnn_compiler.runtime.place import is_gpu, place_of
from ldsnn_compiler.targets.boards import Board


@dataclass(frozen=True)
class GpuRow:
    """``make(batch)`` gives ``run()``, which computes the class scores ``[N, classes]`` on the device.

    ``expected`` are the scores it must give for one image, if that is known. ``timesteps`` by layer. ``needs_gpu``:
    there is nothing of it to rehearse elsewhere.
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
    """One image, repeated."""
    image = torch.from_numpy(folder.arrays[folder.model["images"]])[:1]
    return image.expand(batch, *image.shape[1:]).contiguous()


def _bound(folder: Folder, entries: Mapping[int, Entry], batch: int) -> Run:
    function, arguments = light(folder, entries[batch]).bound(images(folder, batch).numpy())
    return lambda: from_dlpack(function(*arguments)[0])[0]


def theirs(network: Network, device: str = "cuda") -> list[GpuRow]:
    """SpikingJelly, which picks Triton kernels on a GPU by itself, and PyTorch, each as it is and replayed as a CUDA
    graph; PyTorch compiled; the ANN twin in half precision."""
    steps, scores = dict.fromkeys(network.paths, network.timesteps), logits(network, network.spikes[-1])
    graphed, eager = "replayed as a CUDA graph", "eager"
    plain = partial(_module, network, device, TorchNet)
    twin = partial(_module, network, device, relu_module, dtype=torch.float16)
    jelly = partial(_spikingjelly, network, device)
    return [
        GpuRow("spikingjelly", jelly, steps, scores, eager),
        GpuRow("spikingjelly_graph", lambda batch: replayed(jelly(batch)), steps, scores, graphed, True),
        GpuRow("torch", plain, steps, scores, f"{eager}, channels_last"),
        GpuRow("torch_graph", lambda batch: replayed(plain(batch)), steps, scores, f"{graphed}, channels_last", True),
        GpuRow("ann_fp16", lambda batch: replayed(twin(batch)), {}, None, f"{graphed}, channels_last", True),
        GpuRow("torch_compile", partial(plain, compiled=True), steps, scores, "inductor, reduce-overhead", True),
    ]


def _spikingjelly(network: Network, device: str, batch: int) -> Run:
    from spikingjelly.activation_based import functional

    module, x = spikingjelly_module(network).to(device), _repeated(network, batch).to(device)

    def run() -> Tensor:
        functional.reset_net(module)
        return module(x)  # type: ignore[no-any-return]

    return run


def _module(
    network: Network,
    device: str,
    build: Callable[[Network], nn.Module],
    batch: int,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Run:
    module = build(network).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = _repeated(network, batch).to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    called = torch.compile(module, mode="reduce-overhead", dynamic=False) if compiled else module
    return lambda: called(x)


def _repeated(network: Network, batch: int) -> Tensor:
    image = network.images[:1]
    return image.expand(batch, *image.shape[1:]).contiguous()


def replayed(run: Run, warm_up: int = 3) -> Run:
    """The launches of a run, recorded once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = run()

    def again() -> Tensor:
        graph.replay()
        return scores

    return again
