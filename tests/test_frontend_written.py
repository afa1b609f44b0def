"""Plain PyTorch: neurons written by hand in a time loop, with the same spikes and state bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify


class Step(torch.autograd.Function):
    """A surrogate gradient as tutorials write it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.zeros_like(x)
        out[x > 0] = 1.0
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (10 * x.abs() + 1) ** 2


class Net(nn.Module):
    """Two layers whose neurons ``update(self, v, current) -> (spikes, v)`` writes out."""

    def __init__(self, update: Callable[..., Any], states: int = 1) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 6), nn.Linear(6, 4)
        self.update, self.states = update, states
        self.beta, self.threshold = nn.Parameter(torch.tensor(0.9)), 0.7
        self.register_buffer("decays", torch.tensor([0.25, 0.5, 0.75, 0.5, 0.9, 0.875]))
        make_dyadic(self.fc1, seed=1)
        make_dyadic(self.fc2, seed=2)
        self.fc2.weight.data *= 4

    def forward(self, x: Tensor) -> Any:
        v1 = [torch.zeros(x.shape[1], 6) for _ in range(self.states)]
        v2 = [torch.zeros(x.shape[1], 4) for _ in range(self.states)]
        spikes, membranes = [], []
        for t in range(STEPS):
            s1, *v1 = self.update(self, self.fc1(x[t]), *v1)
            s2, *v2 = self.update(self, self.fc2(s1), *v2)
            spikes.append(s2)
            membranes.append(v2[0])
        return torch.stack(spikes), torch.stack(membranes)


def soft(net: Net, x: Tensor, v: Tensor) -> Any:
    v = net.beta * v + x
    s = (v > net.threshold).float()
    return s, v - s * net.threshold


def surrogate(net: Net, x: Tensor, v: Tensor) -> Any:
    v = v * 0.75 + x
    s = Step.apply(v - net.threshold)
    return s, v * (1 - s)


def selected(net: Net, x: Tensor, v: Tensor) -> Any:
    v = v + (x - v) / 3.0
    s = (v >= net.threshold).to(v.dtype)
    return s, torch.where(s > 0, torch.full_like(v, -0.25), v)


def bounded(net: Net, x: Tensor, v: Tensor) -> Any:
    v = torch.clamp(net.beta.clamp(0, 0.5) * v + x, min=-1.0)
    s = (v > net.threshold).float()
    return s, (v - net.threshold * s).detach()


def integrator(net: Net, x: Tensor, v: Tensor) -> Any:
    v = 0.875 * v + 0.5 * x
    return (v > 0.25).float(), v


def late(net: Net, x: Tensor, v: Tensor, s: Tensor) -> Any:
    v = 0.9 * v * (1 - s) + x
    s = (v > net.threshold).float()
    return s, v, s


def adaptive(net: Net, x: Tensor, v: Tensor, a: Tensor) -> Any:
    v = 0.9 * v + x
    s = (v > net.threshold + a).float()
    return s, v - s * net.threshold, 0.8 * a + 0.3 * s


def synaptic(net: Net, x: Tensor, v: Tensor, i: Tensor) -> Any:
    i = 0.7 * i + x
    v = 0.9 * v + i
    s = (v > net.threshold).float()
    return s, v - s, i


UPDATES: dict[str, tuple[Callable[..., Any], int]] = {
    "soft": (soft, 1),
    "surrogate": (surrogate, 1),
    "selected": (selected, 1),
    "bounded": (bounded, 1),
    "integrator": (integrator, 1),
    "late": (late, 2),
    "adaptive": (adaptive, 2),
    "synaptic": (synaptic, 2),
}


def agree(model: nn.Module, x: Tensor) -> Graph:
    """The imported graph, whose outputs are the model's, and which survives being written and read."""
    graph = trace(model, x)
    verify(graph)
    with torch.no_grad():
        for ours, theirs in zip(Interpreter(graph)(x), model(x), strict=True):
            assert torch.equal(ours, theirs)
        assert float(theirs.ne(0).float().mean()) > 0.02
    assert graph_text(parse_graph(graph_text(graph), graph.tensors)) == graph_text(graph)
    return graph


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_written_by_hand_is_a_neuron(name: str) -> None:
    update, states = UPDATES[name]
    graph = agree(Net(update, states).eval(), 2 * dyadic(STEPS, 3, 5, seed=3))
    spiking = [n for n in graph.of("neuron") if n["neuron"].template == "written"]
    assert len(spiking) == 2 and all(n.type.signal.is_event for n in spiking)


def test_the_program_is_what_was_written() -> None:
    graph = agree(Net(soft).eval(), 2 * dyadic(STEPS, 3, 5, seed=3))
    program = graph.of("neuron")[0]["neuron"].program
    assert [str(a) for a in program.charge] == [
        "h0 = 0.8999999761581421 * v", "h1 = h0 + x", "n = h1 > 0.7", "h3 = n * 0.7", "h4 = h1 - h3",
    ]  # fmt: skip
    assert [str(a) for a in program.reset] == ["v = h4"]


def test_parameters_of_each_neuron() -> None:
    def update(net: Net, x: Tensor, v: Tensor) -> Any:
        v = net.decays[: x.shape[1]] * v + x
        s = (v > 1).float()
        return s, v - s

    class Own(Net):
        def forward(self, x: Tensor) -> Any:
            v = torch.zeros(x.shape[1], 6)
            spikes = []
            for t in range(STEPS):
                v = self.decays * v + self.fc1(x[t])
                s = (v > 1).float()
                v = v - s
                spikes.append(s)
            return torch.stack(spikes), v

    graph = agree(Own(update).eval(), 2 * dyadic(STEPS, 3, 5, seed=3))
    assert dict(graph.of("neuron")[0]["neuron"].settings)["p0"].name == "neuron1.p0"


class Kept(nn.Module):
    """A neuron module that keeps its membrane in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.v is None:
            self.v = torch.zeros_like(x)
        self.v = 0.9 * self.v + x
        s = (self.v >= 1.0).float()
        self.v = self.v * (1.0 - s)
        return s


def test_state_in_an_attribute_of_a_module() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.n1, self.fc2, self.n2 = nn.Linear(5, 6), Kept(), nn.Linear(6, 4), Kept()
            make_dyadic(self)

        def forward(self, x: Tensor) -> Any:
            self.n1.v = self.n2.v = None
            out = [self.n2(self.fc2(self.n1(self.fc1(step)))) for step in x]
            return torch.stack(out), sum(out)

    model = Model().eval()
    agree(model, 4 * dyadic(STEPS, 3, 5, seed=3))


@pytest.mark.slow
def test_compiled_code_is_the_loop_bit_for_bit() -> None:
    from ldsnn_compiler.driver import compile

    x = 2 * dyadic(STEPS, 3, 5, seed=3)
    for name in ("soft", "adaptive", "synaptic"):
        model = Net(*UPDATES[name]).eval()
        with torch.no_grad():
            for ours, theirs in zip(compile(trace(model, x), batch=3)(x), model(x), strict=True):
                assert torch.equal(ours, theirs), name


def test_states_that_start_as_the_number_zero() -> None:
    agree(FromANumber(soft).eval(), 2 * dyadic(STEPS, 3, 5, seed=3))


class Layer(nn.Module):
    """A layer of neurons that loops over the timesteps itself, along axis ``dim``."""

    spike = Step.apply
    """Taken before any import begins, as tutorials do."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        v: Any = 0
        spikes = []
        for t in range(x.shape[self.dim]):
            v = v * 0.5 + (x[t] if self.dim == 0 else x[:, t, ...])
            s = Layer.spike(v - 1.0)
            v = (1 - s) * v
            spikes.append(s)
        return torch.stack(spikes, dim=self.dim)


class Frames(nn.Module):
    """A layer on every frame, time and batch in one axis."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flatten(0, 1))
        return y.view(x.shape[0], -1, *y.shape[1:])


@pytest.mark.parametrize("dim", [0, 1])
def test_layers_that_loop_one_after_the_other(dim: int) -> None:
    """Each loop runs all timesteps before the next layer begins."""
    model = nn.Sequential(
        Frames(nn.Conv2d(1, 4, 3)), Layer(dim), nn.Flatten(2), nn.Linear(16, 6), Layer(dim), nn.Linear(6, 3), Layer(dim)
    )
    model = make_dyadic(model, seed=1).eval()
    for module in (model[3], model[5]):
        module.weight.data *= 4
    x = 4 * dyadic(*((STEPS, 3) if dim == 0 else (3, STEPS)), 1, 4, 4, seed=3)
    graph = trace(model, x)
    verify(graph)
    with torch.no_grad():
        wanted = model(x)
        assert torch.equal(Interpreter(graph)(x), wanted)
    assert float(wanted.mean()) > 0.02
    assert len(graph.of("neuron")) == 3
    assert graph.inputs[0]["time"] == ("sequence", "batch_first")[dim]


class AllAtOnce(nn.Module):
    """States that all become what the old ones say, and spikes of the old membrane; then a readout with two more."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(dyadic(5, 6, seed=1) * 4), nn.Parameter(dyadic(6, 4, seed=2))

    def forward(self, x: Tensor) -> Any:
        drive = torch.einsum("abc,cd->abd", (x, self.w1))
        syn, mem = torch.zeros(x.shape[0], 6), torch.zeros(x.shape[0], 6)
        spikes = []
        for t in range(x.shape[1]):
            s = Layer.spike(mem - 1.0)
            new_syn = 0.5 * syn + drive[:, t]
            mem = (0.75 * mem + syn) * (1.0 - s.detach())
            syn = new_syn
            spikes.append(s)
        drive = torch.stack(spikes, dim=1) @ self.w2
        flt, out = torch.zeros(x.shape[0], 4), torch.zeros(x.shape[0], 4)
        record = []
        for t in range(x.shape[1]):
            new_flt = 0.5 * flt + drive[:, t]
            out = 0.75 * out + flt
            flt = new_flt
            record.append(out)
        return torch.stack(record, dim=1), torch.stack(spikes, dim=1)


def test_states_that_read_what_the_others_were_are_one_neuron() -> None:
    graph = agree(AllAtOnce().eval(), 2 * dyadic(3, STEPS, 5, seed=3))
    assert [len(n["neuron"].program.state) for n in graph.of("neuron")] == [2, 2]


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda x, w: x @ w,
    "matmul": torch.matmul,
    "method": lambda x, w: x.matmul(w),
    "einsum": lambda x, w: torch.einsum("tni,io->tno", x, w),
    "any_axes": lambda x, w: torch.einsum("... i, i o -> ... o", x, w),
    "constant_first": lambda x, w: torch.einsum("oi,tni->tno", w.t(), x),
}


class Product(nn.Module):
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.product, self.w = product, nn.Parameter(dyadic(5, 6, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.w)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_a_constant_matrix_are_linear_layers(name: str) -> None:
    model, x = Product(PRODUCTS[name]), dyadic(STEPS, 3, 5, seed=3)
    graph = trace(model, x, sequence=True)
    assert [n.op.name for n in graph.nodes] == ["input", "linear", "output"]
    assert torch.equal(Interpreter(graph)(x), model(x))


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: w.t() @ x.transpose(1, 2),
        lambda x, w: x @ x,
        lambda x, w: torch.einsum("tni,tni->tn", x, x),
        lambda x, w: torch.einsum("tni,io->otn", x, w),
    ],
)
def test_other_products_are_refused_with_what_can_be_had(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ImportRefused, match="times a constant matrix, over its last axis"):
        trace(Product(product), dyadic(STEPS, 5, 5), sequence=True)


def exponential(net: Net, x: Tensor, v: Tensor) -> Any:
    v = torch.exp(-v) + x
    return (v > 1).float(), v


def two_currents(net: Net, x: Tensor, v: Tensor) -> Any:
    v = 0.9 * v + x + torch.sin(x)
    return (v > 1).float(), v


class FedBack(Net):
    def forward(self, x: Tensor) -> Any:
        v, s = torch.zeros(x.shape[1], 6), torch.zeros(x.shape[1], 6)
        for t in range(STEPS):
            v = 0.9 * v + (self.fc1(x[t]) + self.fc2(s))
            s = (v > 1).float()
        return s


class FromANumber(Net):
    """Its state starts as a number, so that Python does the first turn's arithmetic with it."""

    start: float = 0

    def forward(self, x: Tensor) -> Any:
        v, s, out = self.start, self.start, []
        for t in range(STEPS):
            v = 0.75 * v * (1 - s) + self.fc1(x[t])
            s = (v > 1).float()
            out.append(s)
        return torch.stack(out), v


class FromAQuarter(FromANumber):
    start = 0.25


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "exponential": (lambda: Net(exponential), "exp"),
    "two_currents": (lambda: Net(two_currents), "driven by 2 values"),
    "fed_back": (lambda: FedBack(soft), "may be carried"),
    "from_a_number": (lambda: FromAQuarter(soft), "torch.zeros_like"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named(case: str) -> None:
    make, wanted = REFUSED[case]
    with pytest.raises(ImportRefused, match=wanted):
        trace(make().eval(), dyadic(STEPS, 3, 5, seed=3))


def test_tracing_leaves_attributes_as_they_were() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = Kept()

        def forward(self, x: Tensor) -> Tensor:
            self.neuron.v = None
            return torch.stack([self.neuron(step) for step in x])

    model = Model().eval()
    trace(model, dyadic(STEPS, 3, 5), sequence=True)
    assert model.neuron.v is None
