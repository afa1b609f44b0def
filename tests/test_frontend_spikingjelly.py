"""SpikingJelly models: spikes and final state equal to SpikingJelly's own run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.spikingjelly

try:
    from spikingjelly.activation_based import functional, layer, neuron
except ModuleNotFoundError:  # the marker skips every test of this file
    functional = layer = neuron = None

NEURONS: dict[str, Callable[..., nn.Module]] = {
    "if_soft": lambda **kw: neuron.IFNode(v_reset=None, **kw),
    "if_hard": lambda **kw: neuron.IFNode(v_reset=0.0, **kw),
    "if_hard_at_a_quarter": lambda **kw: neuron.IFNode(v_threshold=1.5, v_reset=0.25, **kw),
    "half_threshold_if": lambda **kw: neuron.HalfThresholdIFNode(v_threshold=1.5, **kw),
    "lif_soft": lambda **kw: neuron.LIFNode(tau=2.0, v_reset=None, **kw),
    "lif_hard": lambda **kw: neuron.LIFNode(tau=4.0, v_threshold=0.5, v_reset=0.0, **kw),
    "lif_hard_at_minus_a_quarter": lambda **kw: neuron.LIFNode(tau=2.0, v_reset=-0.25, **kw),
    "lif_uneven_tau": lambda **kw: neuron.LIFNode(tau=3.0, v_reset=None, **kw),
    "lif_no_decay_soft": lambda **kw: neuron.LIFNode(tau=2.0, decay_input=False, v_reset=None, **kw),
    "lif_no_decay_hard": lambda **kw: neuron.LIFNode(tau=1.5, decay_input=False, v_reset=0.125, **kw),
    "lif_detached": lambda **kw: neuron.LIFNode(detach_reset=True, **kw),
    "plif_soft": lambda **kw: neuron.ParametricLIFNode(init_tau=2.0, v_reset=None, **kw),
    "plif_hard": lambda **kw: neuron.ParametricLIFNode(init_tau=3.0, v_reset=0.0, **kw),
    "plif_no_decay": lambda **kw: neuron.ParametricLIFNode(init_tau=3.0, decay_input=False, v_reset=-0.5, **kw),
    "cuba_lif_hard": lambda **kw: in_mode(neuron.CUBALIFNode(v_reset=0.125), **kw),
    "cuba_lif_soft": lambda **kw: in_mode(neuron.CUBALIFNode(c_decay=0.3, v_threshold=1.0, v_reset=None), **kw),
    "izhikevich": lambda **kw: neuron.IzhikevichNode(tau=2.0, a=0.5, b=0.25, tau_w=4.0, **kw),
    "izhikevich_uneven": lambda **kw: neuron.IzhikevichNode(
        tau=1.5, a0=0.5, a=0.3, b=0.2, tau_w=3.0, v_reset=-0.1, **kw
    ),
}

STATE = {"i": "c"}
"""State variables that SpikingJelly calls otherwise."""


def in_mode(node: nn.Module, step_mode: str = "s") -> nn.Module:
    """For classes whose constructor does not take the step mode."""
    node.step_mode = step_mode
    return node


class Zoo(nn.Module):
    """Every neuron variant behind one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layer.Conv2d(2, 4, 3)
        self.neurons = nn.ModuleDict({name: make() for name, make in NEURONS.items()})

    def forward(self, x: Tensor) -> list[Tensor]:
        current = self.conv(x)
        return [node(current) for node in self.neurons.values()]


def run_both(model: nn.Module, x: Tensor, timesteps: int | None = None) -> tuple[Any, Any, Interpreter]:
    """SpikingJelly's result, ours, and the interpreter that ran."""
    graph = trace(model, x, timesteps)
    verify(graph)
    functional.reset_net(model)
    with torch.no_grad():
        theirs = model(x)
        interpreter = Interpreter(graph)
        ours = interpreter(x)
    return theirs, ours, interpreter


def firing_rates(graph: Graph, x: Tensor) -> list[float]:
    """Mean output of every neuron node."""
    rates: list[float] = []
    interpreter = Interpreter(graph)
    interpreter.observers.append(
        lambda node, _, out: rates.append(float(out[0].mean())) if node.op.name == "neuron" else None
    )
    with torch.no_grad():
        interpreter(x)
    return rates


def same_state(interpreter: Interpreter, model: nn.Module) -> None:
    """Every membrane equals that of the module at the node's path."""
    nodes = [n for n in interpreter.graph.of("neuron")]
    assert nodes
    for node in nodes:
        for variable, value in interpreter.state[node.name].items():
            assert torch.equal(value, getattr(model.get_submodule(node.path), STATE.get(variable, variable))), node.path


def conv_net(make: Callable[..., nn.Module], step_mode: str = "m") -> nn.Module:
    """conv, BatchNorm, neuron, max pool, neuron, linear, neuron."""
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        layer.BatchNorm2d(4),
        make(),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(36, 5),
        make(),
    )
    functional.set_step_mode(net, step_mode)
    return make_dyadic(net)


@pytest.mark.parametrize("name", NEURONS)
def test_multi_step_neuron(name: str) -> None:
    model = conv_net(NEURONS[name])
    theirs, ours, interpreter = run_both(model, dyadic(STEPS, 3, 2, 6, 6))
    assert torch.equal(theirs, ours)
    assert 0.01 < firing_rates(interpreter.graph, dyadic(STEPS, 3, 2, 6, 6))[0] < 0.99
    same_state(interpreter, model)


@pytest.mark.parametrize("name", NEURONS)
def test_single_step_neuron(name: str) -> None:
    model, x = conv_net(NEURONS[name], "s"), dyadic(3, 2, 6, 6)
    graph = trace(model, x, STEPS)
    with torch.no_grad():
        theirs = torch.stack([model(x) for _ in range(STEPS)])
        interpreter = Interpreter(graph)
        ours = interpreter(x)
    assert torch.equal(theirs, ours)
    same_state(interpreter, model)


@pytest.mark.slow
def test_compiled_code_equals_spikingjelly() -> None:
    from ldsnn_compiler.driver import compile

    model, x = make_dyadic(Zoo()), dyadic(STEPS, 3, 2, 6, 6)
    with torch.no_grad():
        theirs = [torch.stack(steps) for steps in zip(*(model(step) for step in x), strict=True)]
    states = {name: dict(node.named_memories()) for name, node in model.neurons.items()}
    functional.reset_net(model)
    compiled = compile(trace(model, x, STEPS), batch=3)
    compiled.reset()
    streamed = [torch.cat(parts) for parts in zip(compiled.step(x[:23]), compiled.step(x[23:]), strict=True)]
    for name, expected, whole, parts in zip(NEURONS, theirs, compiled(x), streamed, strict=True):
        assert 0.01 < float(expected.mean()) < 0.99, name
        assert torch.equal(expected, whole), name
        assert torch.equal(expected, parts), name
        state = compiled.state[f"neurons.{name}"]
        assert state.keys() and all(torch.equal(v, states[name][STATE.get(k, k)]) for k, v in state.items()), name


def contained(name: str) -> nn.Module:
    """A recurrent container around layers of its own."""
    if name == "element_wise":
        return layer.ElementWiseRecurrentContainer(neuron.IFNode(v_reset=None), lambda y, x: 0.5 * y + x)
    inner = nn.Sequential(nn.Linear(6, 4), neuron.LIFNode(tau=3.0)) if name == "deep" else neuron.IFNode()
    return layer.LinearRecurrentContainer(inner, 6, 4 if name == "deep" else 6)


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("name", ["linear", "deep", "element_wise"])
def test_recurrent_containers_feed_their_output_back(name: str, step_mode: str) -> None:
    from ldsnn_compiler.driver import compile

    model, x = nn.Sequential(nn.Linear(5, 6), contained(name)), 4 * dyadic(STEPS, 3, 5, seed=4)
    model[1].step_mode = step_mode
    make_dyadic(model)
    with torch.no_grad():
        theirs = model(x) if step_mode == "m" else torch.stack([model(step) for step in x])
    functional.reset_net(model)
    graph = trace(model, x, STEPS, sequence=True)
    verify(graph)
    runs = [Interpreter(graph), *([compile(graph, batch=3)] if step_mode == "m" else [])]
    with torch.no_grad():
        assert all(torch.equal(run(x), theirs) for run in runs)
    assert 0.02 < float(theirs.mean()) < 0.98
