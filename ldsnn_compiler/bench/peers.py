"""The rows other than ours. Each is built to be fast the way its library allows: eval mode, no gradients, and
channels_last where a short trial shows that it helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ldsnn_compiler.bench import ann
from ldsnn_compiler.bench.modules import (
    Peer,
    TorchNet,
    available,
    relu_module,
    snntorch_module,
    spikingjelly_module,
)
from ldsnn_compiler.bench.network import Network
from ldsnn_compiler.results import measure

TRIALS = 3
"""Rounds of the trial that decides between memory formats."""


def spikingjelly_peer(network: Network) -> Peer:
    """SpikingJelly in multi-step mode; the reset between runs, which its users must do, is part of a run."""
    from spikingjelly.activation_based import functional

    module = spikingjelly_module(network)

    def run(x: Tensor) -> Tensor:
        functional.reset_net(module)
        with torch.no_grad():
            return module(x)  # type: ignore[no-any-return]

    neurons = [getattr(module, path) for path in network.paths]
    return _chosen("spikingjelly", module, network, run, lambda x: _hooked(neurons, lambda: run(x), multi_step=True))


def snntorch_peer(network: Network) -> Peer:
    """snnTorch with its loop over time."""
    module: Any = snntorch_module(network)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)  # type: ignore[no-any-return]

    neurons = list(module.neurons)
    return _chosen("snntorch", module, network, run, lambda x: _hooked(neurons, lambda: run(x), multi_step=False))


def torch_peer(network: Network) -> Peer:
    """Plain PyTorch."""
    module = TorchNet(network)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)  # type: ignore[no-any-return]

    return _chosen("torch", module, network, run, lambda x: _recorded(module, network, x))


def torch_compile_peer(network: Network) -> Peer:
    """The same module through ``torch.compile`` (inductor), channels_last as in the row before."""
    module = TorchNet(network)
    x = _channels_last(module, network.images) if network.spec.convolutional else network.images
    compiled = torch.compile(module, dynamic=False)

    def run() -> Tensor:
        with torch.no_grad():
            return compiled(x)  # type: ignore[no-any-return]

    return Peer("torch_compile", run, lambda: _recorded(compiled, network, x), "inductor")


def ort_fp32_peer(network: Network) -> Peer:
    """The ANN twin in ONNX Runtime, float32."""
    module, x = relu_module(network), network.images
    return _twin("ort_fp32", ann.float_twin(module, x, torch.get_num_threads()), module, x)


def ort_int8_peer(network: Network) -> Peer:
    """The ANN twin in ONNX Runtime, int8, calibrated on the images that are timed."""
    module, x = relu_module(network), network.images
    return _twin("ort_int8", ann.int8_twin(module, x, len(x), torch.get_num_threads()), module, x)


def _twin(name: str, twin: ann.Twin, module: nn.Module, x: Tensor) -> Peer:
    """An ANN has no spikes to compare; its scores are compared with those of its PyTorch module."""
    with torch.no_grad():
        off = ann.relative_difference(twin(x), module(x))
    note = f"ANN twin, {twin.note}, {twin.threads} threads; scores within {off:.1e} of PyTorch's largest"
    return Peer(name, lambda: twin(x), None, note)


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Network], Peer]]] = {
    "spikingjelly": (("spikingjelly",), spikingjelly_peer),
    "snntorch": (("snntorch",), snntorch_peer),
    "torch": (("torch",), torch_peer),
    "torch_compile": (("torch",), torch_compile_peer),
    "ort_fp32": (ann.PACKAGES, ort_fp32_peer),
    "ort_int8": (ann.PACKAGES, ort_int8_peer),
}
"""Row name -> (packages it needs, how to build it)."""


def missing() -> dict[str, str]:
    """Rows that cannot be built here, and which packages they lack."""
    lacking = {name: [p for p in packages if not available(p)] for name, (packages, _) in PEERS.items()}
    return {name: ", ".join(packages) for name, packages in lacking.items() if packages}


def installed() -> list[str]:
    """Names of the rows whose libraries are installed."""
    return [name for name in PEERS if name not in missing()]


def _recorded(module: Any, network: Network, x: Tensor) -> tuple[list[Tensor], Tensor]:
    with torch.no_grad():
        scores, spikes = module(x, record=True)
    shape = (network.timesteps, len(x))
    return [s.unflatten(0, shape) for s in spikes], scores


def _hooked(neurons: list[nn.Module], run: Callable[[], Tensor], multi_step: bool) -> tuple[list[Tensor], Tensor]:
    """Run once and collect what every neuron layer emits, ``[T, N, *shape]`` each."""
    calls: list[list[Tensor]] = [[] for _ in neurons]

    def keep(store: list[Tensor]) -> Callable[..., None]:
        return lambda _module, _inputs, out: store.append(out[0] if isinstance(out, tuple) else out)

    hooks = [n.register_forward_hook(keep(store)) for n, store in zip(neurons, calls, strict=True)]
    try:
        scores = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [store[0] if multi_step else torch.stack(store) for store in calls], scores


def _channels_last(module: nn.Module, x: Tensor) -> Tensor:
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last)


def _chosen(
    name: str, module: nn.Module, network: Network, run: Callable[[Tensor], Tensor],
    record: Callable[[Tensor], tuple[list[Tensor], Tensor]],
) -> Peer:  # fmt: skip
    """The row in whichever memory format a trial finds faster."""
    plain = network.images
    note, x = "contiguous", plain
    if network.spec.convolutional:
        before = measure({"run": lambda: run(plain)}, TRIALS)["run"].median
        last = _channels_last(module, plain)
        if measure({"run": lambda: run(last)}, TRIALS)["run"].median < before:
            note, x = "channels_last", last
        else:
            for parameter in module.parameters():
                parameter.data = parameter.data.contiguous()
    return Peer(name, lambda: run(x), lambda: record(x), note)
