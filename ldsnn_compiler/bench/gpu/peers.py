"""Rows of others: PyTorch's and SpikingJelly's, built from the very network that ours were compiled from.

Everything may use TF32 and cuDNN's search. Dyadic weights and spikes have few bits, so that this rounds nothing; of
other networks it may flip spikes, as any rounding may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ldsnn_compiler.bench.gpu.folder import Folder, graph_in, network_of
from ldsnn_compiler.bench.gpu.layers import Layers, Loop, SpikingJelly
from ldsnn_compiler.bench.gpu.machine import Run
from ldsnn_compiler.bench.gpu.rows import GpuRow, images
from ldsnn_compiler.bench.modules import TorchNet, relu_module, spikingjelly_module
from ldsnn_compiler.schedule import neuron_layers

#: timesteps that PyTorch's compiler is given at most: it unrolls the loop over them, which takes minutes for more
MOST_COMPILED = 16


@dataclass(frozen=True)
class Modules:
    """The network as modules ``[N, *shape]`` to scores: SpikingJelly's, PyTorch's, and the ANN twin. ``timesteps`` by
    layer."""

    spikingjelly: Callable[[], nn.Module]
    torch: Callable[[], nn.Module]
    twin: Callable[[], nn.Module]
    timesteps: dict[str, int]


def modules(folder: Folder) -> Modules:
    """Of the network that the folder holds."""
    if (graph := graph_in(folder)) is not None:
        return Modules(
            partial(Layers, graph, SpikingJelly),
            partial(Layers, graph, Loop),
            partial(Layers, graph, lambda fires: nn.ReLU(), in_time=False),
            {path: node.type.timesteps for path, node in neuron_layers(graph).items()},
        )
    network = network_of(folder)
    return Modules(
        partial(spikingjelly_module, network),
        partial(TorchNet, network),
        partial(relu_module, network),
        dict.fromkeys(network.paths, network.timesteps),
    )


def theirs(folder: Folder, device: str = "cuda") -> list[GpuRow]:
    """SpikingJelly, which picks Triton kernels on a GPU by itself, and PyTorch, each as it is and replayed as a CUDA
    graph; PyTorch compiled, if timesteps are few; the ANN twin in half precision."""
    made = modules(folder)
    steps, scores = made.timesteps, torch.from_numpy(folder.arrays[folder.model["scores"]])
    graphed, eager = "replayed as a CUDA graph", "eager"
    jelly = partial(_spikingjelly, made.spikingjelly, folder, device)
    plain = partial(_module, made.torch, folder, device)
    twin = partial(_module, made.twin, folder, device, dtype=torch.float16)
    rows = [
        GpuRow("spikingjelly", jelly, steps, scores, eager),
        GpuRow("spikingjelly_graph", lambda batch: replayed(jelly(batch)), steps, scores, graphed, True),
        GpuRow("torch", plain, steps, scores, f"{eager}, channels_last"),
        GpuRow("torch_graph", lambda batch: replayed(plain(batch)), steps, scores, f"{graphed}, channels_last", True),
        GpuRow("ann_fp16", lambda batch: replayed(twin(batch)), {}, None, f"{graphed}, channels_last", True),
    ]
    if max(steps.values()) <= MOST_COMPILED:
        compiled = partial(plain, compiled=True)
        rows.append(GpuRow("torch_compile", compiled, steps, scores, "inductor, reduce-overhead", True))
    return rows


def _spikingjelly(build: Callable[[], nn.Module], folder: Folder, device: str, batch: int) -> Run:
    from spikingjelly.activation_based import functional

    module, x = build().to(device), images(folder, batch).to(device)

    def run() -> Tensor:
        functional.reset_net(module)
        return module(x)  # type: ignore[no-any-return]

    return run


def _module(
    build: Callable[[], nn.Module],
    folder: Folder,
    device: str,
    batch: int,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Run:
    module = build().to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = images(folder, batch).to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    called = torch.compile(module, mode="reduce-overhead", dynamic=False) if compiled else module
    return lambda: called(x)


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
