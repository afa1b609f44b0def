"""SpikingJelly's model zoo with random weights: imported, interpreted and compiled, with the library's own spikes.

The weights are multiples of a power of two and BatchNorm only shifts, so that every sum is exact and order does not
matter. Sizes are small: the zoo's layers, not its data sets.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from frontend_models import dyadic
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.spikingjelly

try:
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
except ModuleNotFoundError:  # the marker skips every test of this file
    functional = layer = neuron = surrogate = None

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def torchvision() -> Iterator[None]:
    """The zoo takes one function from torchvision, which downloads weights; nothing here does."""
    names = ("torchvision", "torchvision.models", "torchvision.models.utils")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[names[-1]].load_state_dict_from_url = None  # type: ignore[attr-defined]
        yield


def made(family: str, name: str, **settings: Any) -> nn.Module:
    """A model of the zoo, its weights multiples of 1/16 around zero, so that many of its neurons fire."""
    model = getattr(import_module(f"spikingjelly.activation_based.model.{family}"), name)(**settings)
    if family == "spiking_vgg":  # its own classifier has 120 million weights
        model.classifier = layer.Linear(512 * 7 * 7, 10)
    for seed, module in enumerate(model.modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = 0.0
            module.weight.data.fill_(4.0)
            module.bias.data = dyadic(*module.bias.shape, seed=seed, low=0, high=48)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = dyadic(*module.weight.shape, seed=seed, low=-8, high=9)
    functional.set_step_mode(model, "m")
    return model.eval()


def vgg(name: str) -> nn.Module:
    return made("spiking_vgg", name, spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan())


def resnet(name: str) -> nn.Module:
    return made("spiking_resnet", name, spiking_neuron=neuron.IFNode, v_reset=None, num_classes=10)


def sew(name: str, function: str) -> nn.Module:
    settings = {"spiking_neuron": neuron.LIFNode, "tau": 1.5, "detach_reset": True, "num_classes": 10}
    return made("sew_resnet", name, cnf=function, **settings)


def plif(name: str) -> nn.Module:
    return made("parametric_lif_net", name, channels=8, spiking_neuron=neuron.ParametricLIFNode, init_tau=2.0)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "vgg11": (lambda: vgg("spiking_vgg11"), (3, 32, 32)),
    "vgg16_bn": (lambda: vgg("spiking_vgg16_bn"), (3, 32, 32)),
    "resnet18": (lambda: resnet("spiking_resnet18"), (3, 32, 32)),
    "sew_resnet18_add": (lambda: sew("sew_resnet18", "ADD"), (3, 32, 32)),
    "sew_resnet18_and": (lambda: sew("sew_resnet18", "AND"), (3, 32, 32)),
    "sew_resnet18_iand": (lambda: sew("sew_resnet18", "IAND"), (3, 32, 32)),
    "sew_resnet50_add": (lambda: sew("sew_resnet50", "ADD"), (3, 32, 32)),
    "plif_mnist": (lambda: plif("MNISTNet"), (1, 28, 28)),
    "plif_fashion_mnist": (lambda: plif("FashionMNISTNet"), (1, 28, 28)),
    "plif_nmnist": (lambda: plif("NMNISTNet"), (2, 34, 34)),
    "plif_cifar10": (lambda: plif("CIFAR10Net"), (3, 32, 32)),
    "plif_cifar10_dvs": (lambda: plif("CIFAR10DVSNet"), (2, 128, 128)),
    "plif_dvs_gesture": (lambda: plif("DVSGestureNet"), (2, 128, 128)),
}
COMPILED = ("vgg16_bn", "sew_resnet18_iand", "plif_mnist")
"""One of each family is compiled as well."""


def spikes_of(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output, and what every neuron emits, by module path."""
    found: dict[str, Tensor] = {}
    hooks = [
        m.register_forward_hook(lambda _, __, out, path=path: found.update({path: out}))
        for path, m in model.named_modules()
        if isinstance(m, neuron.BaseNode)
    ]
    functional.reset_net(model)
    with torch.no_grad():
        found["output"] = model(x)
    for hook in hooks:
        hook.remove()
    functional.reset_net(model)
    return found


def same_spikes(graph: Graph, x: Tensor, theirs: dict[str, Tensor]) -> Tensor:
    """The interpreter's output; every layer's spikes are the library's."""
    interpreter, seen = Interpreter(graph), []
    interpreter.observers.append(
        lambda node, _, out: seen.append((node.path, out[0])) if node.op.name == "neuron" else None
    )
    with torch.no_grad():
        y = interpreter(x)
    assert len(seen) == len(theirs) - 1
    for path, spikes in seen:
        assert torch.equal(spikes, theirs[path]), path
    return y  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_spikes_of_the_library(name: str) -> None:
    from ldsnn_compiler.driver import compile

    build, shape = MODELS[name]
    model, x = build(), dyadic(STEPS, 1, *shape, seed=9)
    graph = trace(model, x)
    verify(graph)
    theirs = spikes_of(model, x)
    rates = {path: float(spikes.mean()) for path, spikes in theirs.items() if path != "output"}
    assert all(0.005 < rate < 0.995 for rate in rates.values()), rates
    assert torch.equal(same_spikes(graph, x, theirs), theirs["output"])
    if name in COMPILED:
        assert torch.equal(compile(graph)(x), theirs["output"])
