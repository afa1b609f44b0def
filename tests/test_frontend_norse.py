"""Norse networks: values and final state equal to Norse's own run, bit for bit, interpreted and compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from hypothesis import given, settings
from hypothesis import strategies as st
from norse_models import (
    CELLS,
    LAYERS,
    READOUTS,
    WIDTH,
    Layers,
    Loop,
    assert_states_equal,
    box,
    drive,
    iaf,
    lif,
    lsnn,
    snn,
)
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.norse
FORMS = [*(("cell", name) for name in CELLS), *(("layer", name) for name in LAYERS)]


def model_of(form: str, name: str) -> nn.Module:
    """A network of two layers of one variant."""
    return (Loop(CELLS, name) if form == "cell" else Layers(LAYERS, name)).eval()


def agree(model: nn.Module, x: Tensor) -> Tensor:
    """Interpreted values and state equal the library's; the library's values are returned."""
    graph = trace(model, x)
    verify(graph)
    interpreter = Interpreter(graph)
    with torch.no_grad():
        values, states = model(x)
        ours = interpreter(x)
    assert torch.equal(ours, values)
    assert_states_equal(graph, interpreter.state, states)
    return values


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_every_variant_equals_the_library(form: str, name: str) -> None:
    values = agree(model_of(form, name), drive(STEPS))
    share = float(values.ne(0).float().mean())
    assert 0.01 < share < 0.9 or name in READOUTS


class SideBySide(nn.Module):
    """One layer's current into every variant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, WIDTH)
        self.cells = nn.ModuleDict({name: make() for name, make in CELLS.items()})
        self.layers = nn.ModuleDict({name: make() for name, make in LAYERS.items()})
        make_dyadic(self)

    def forward(self, x: Tensor) -> Any:
        states: dict[str, Any] = dict.fromkeys(self.cells)
        record: dict[str, list[Any]] = {name: [] for name in self.cells}
        for step in range(STEPS):
            current = self.fc(x[step])
            for name, cell in self.cells.items():
                values, states[name] = cell(current, states[name])
                record[name].append(values)
        whole = {f"cells.{name}": torch.stack(record[name]) for name in self.cells}
        after = {f"cells.{name}": state for name, state in states.items()}
        for name, layer in self.layers.items():
            whole[f"layers.{name}"], after[f"layers.{name}"] = layer(self.fc(x))
        return whole, after


@pytest.mark.slow
def test_compiled_values_and_final_state_of_every_variant() -> None:
    model, x = SideBySide().eval(), drive(STEPS)
    graph = trace(model, x)
    compiled = compile(graph, batch=3)
    with torch.no_grad():
        values, states = model(x)
    for ours, (name, wanted) in zip(compiled(x), values.items(), strict=True):
        assert torch.equal(ours, wanted), name
    for step in range(STEPS):  # state is kept between steps, not after a whole run
        compiled.step(x[step : step + 1])
    assert_states_equal(graph, compiled.state, states)


# ---- other ways to write the same network


class Recorded(nn.Module):
    """A loop that records membranes, and spikes of the recurrent layer, from the states."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.one = nn.Linear(5, WIDTH), CELLS["lif_recurrent"]()
        self.out = CELLS["li"]()
        make_dyadic(self)

    def forward(self, x: Tensor) -> Any:
        s1, so = None, None
        membranes, spikes = [], []
        for current in x:
            z, s1 = self.one(self.fc1(current), s1)
            _, so = self.out(z, so)
            membranes.append(s1.v)
            spikes.append(s1.z)
        return torch.stack(membranes), torch.stack(spikes), so.v


def test_membranes_are_read_from_states() -> None:
    model, x = Recorded().eval(), drive(STEPS)
    with torch.no_grad():
        for ours, theirs in zip(Interpreter(trace(model, x))(x), model(x), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("record", [False, True], ids=["last", "all"])
def test_a_layer_gives_its_last_membrane_or_all(record: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(5, WIDTH), snn.LIF(lif(v_th=0.5), record_states=record)
            make_dyadic(self)

        def forward(self, x: Tensor) -> Any:
            z, state = self.lif(self.fc(x))
            return z, state.v

    model, x = Net().eval(), drive(STEPS)
    with torch.no_grad():
        for ours, theirs in zip(Interpreter(trace(model, x))(x), model(x), strict=True):
            assert torch.equal(ours, theirs)


def sequential() -> nn.Module:
    return make_dyadic(snn.SequentialState(nn.Linear(5, WIDTH), CELLS["lif"](), nn.Linear(WIDTH, 3), CELLS["lsnn"]()))


def stepped(model: nn.Module, x: Tensor) -> Tensor:
    """Norse's run of code for one timestep."""
    state, values = None, []
    with torch.no_grad():
        for current in x:
            value, state = model(current, state)
            values.append(value)
    return torch.stack(values)


def test_code_for_one_timestep_is_told_its_timesteps() -> None:
    """``state=None`` is what the caller hands on."""
    model, x = sequential(), drive(STEPS)
    wanted = stepped(model, x)
    graph = trace(model, x, STEPS, sequence=True)
    assert torch.equal(Interpreter(graph)(x), wanted)
    assert [node.name for node in graph.outputs] == ["output"]
    assert torch.equal(Interpreter(trace(snn.Lift(model), x))(x), wanted)


def test_a_static_input_is_held() -> None:
    model, x = sequential(), drive(1)[0]
    graph = trace(model, x, STEPS)
    assert torch.equal(Interpreter(graph)(x), stepped(model, x.expand(STEPS, *x.shape)))


@pytest.mark.parametrize("output", [-1, 1])
def test_recurrent_sequential(output: int) -> None:
    modules = (nn.Linear(5, 5), CELLS["iaf"](), nn.Linear(5, 5), snn.LIFBoxCell(box(v_th=0.25)))
    model = make_dyadic(snn.RecurrentSequential(*modules, output_modules=output))
    x = drive(STEPS)
    wanted = stepped(model, x)
    assert 0 < float(wanted.mean()) < 1
    graph = trace(model, x, STEPS, sequence=True)
    assert torch.equal(Interpreter(graph)(x), wanted)
    assert torch.equal(Interpreter(trace(snn.Lift(model), x))(x), wanted)


def test_a_constant_current_is_encoded() -> None:
    encoder = snn.ConstantCurrentLIFEncoder(STEPS, lif(v_th=0.7))
    model = snn.SequentialState(encoder, snn.LConv2d(2, 3, 3, padding=1, stride=(2, 1)), snn.LIF(lif(v_th=0.2)))
    make_dyadic(model)
    x = 2 * dyadic(3, 2, 7, 6)
    with torch.no_grad():
        assert torch.equal(Interpreter(trace(model.eval(), x))(x), model(x)[0])


RATES = st.sampled_from([7.0, 50.0, 100.0, 333.3, 700.0])
LEVELS = st.floats(-0.5, 0.5, width=32)
PARAMETERS = st.fixed_dictionaries(
    {"tau_mem_inv": RATES, "v_leak": LEVELS, "v_th": st.floats(0.125, 1.5, width=32), "v_reset": LEVELS}
)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["lif", "lif_recurrent", "lif_box", "lsnn", "lsnn_recurrent", "iaf"]),
    PARAMETERS,
    RATES,
    st.sampled_from([0.001, 0.0004]),
    st.integers(0, 9),
)
def test_random_parameters(kind: str, p: dict[str, float], rate: float, dt: float, seed: int) -> None:
    """Values and state, whatever the parameters."""
    firing = {k: p[k] for k in ("v_th", "v_reset")}
    made = {
        "lif": lambda: snn.LIFCell(lif(**p, tau_syn_inv=rate), dt=dt),
        "lif_recurrent": lambda: snn.LIFRecurrentCell(WIDTH, WIDTH, lif(**p, tau_syn_inv=rate), dt=dt),
        "lif_box": lambda: snn.LIFBoxCell(box(**p, soft=seed % 2 == 0), dt=dt),
        "lsnn": lambda: snn.LSNNCell(lsnn(**p, tau_syn_inv=rate), dt=dt),
        "lsnn_recurrent": lambda: snn.LSNNRecurrentCell(WIDTH, WIDTH, lsnn(**p, tau_syn_inv=rate), dt=dt),
        "iaf": lambda: snn.IAFCell(iaf(**firing)),
    }
    agree(Loop(made, kind).eval(), drive(32, seed))
