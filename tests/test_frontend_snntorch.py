"""snnTorch models: spikes and final state equal to snnTorch's own run, bit for bit."""

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
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.snntorch

try:
    import snntorch
    from snntorch import surrogate
except ModuleNotFoundError:  # the marker skips every test of this file
    snntorch = surrogate = None

PER_NEURON = torch.tensor([0.25, 0.5, 0.75, 0.5, 1.5, 0.875])

LEAKY: dict[str, dict[str, Any]] = {
    f"{reset}{'' if delay else '_prompt'}": {"reset_mechanism": reset, "reset_delay": delay}
    for reset in ("subtract", "zero", "none")
    for delay in (True, False)
}
VARIANTS: dict[str, Callable[..., nn.Module]] = {
    **{
        f"leaky_{name}": lambda settings=settings, **kw: snntorch.Leaky(beta=0.75, **settings, **kw)
        for name, settings in LEAKY.items()
    },
    "leaky_beta_above_one": lambda **kw: snntorch.Leaky(beta=1.5, **kw),
    "leaky_beta_below_zero": lambda **kw: snntorch.Leaky(beta=-0.5, reset_mechanism="zero", **kw),
    "leaky_learned": lambda **kw: snntorch.Leaky(
        beta=torch.tensor(0.625), learn_beta=True, threshold=torch.tensor(0.75), learn_threshold=True, **kw
    ),
    "leaky_per_neuron": lambda **kw: snntorch.Leaky(beta=PER_NEURON, threshold=PER_NEURON.flip(0) + 0.25, **kw),
    "leaky_per_neuron_prompt": lambda **kw: snntorch.Leaky(
        beta=PER_NEURON, threshold=PER_NEURON, reset_delay=False, **kw
    ),
    "leaky_graded": lambda **kw: snntorch.Leaky(beta=0.5, graded_spikes_factor=2.5, reset_delay=False, **kw),
    "leaky_graded_below_zero": lambda **kw: snntorch.Leaky(beta=0.5, graded_spikes_factor=-0.5, **kw),
    "leaky_graded_per_neuron": lambda **kw: snntorch.Leaky(
        beta=0.5, graded_spikes_factor=PER_NEURON, learn_graded_spikes_factor=True, **kw
    ),
    "leaky_uneven": lambda **kw: snntorch.Leaky(beta=0.9, threshold=0.3, **kw),
    "leaky_uneven_zero": lambda **kw: snntorch.Leaky(beta=0.9, threshold=0.3, reset_mechanism="zero", **kw),
    "leaky_uneven_prompt": lambda **kw: snntorch.Leaky(beta=0.9, threshold=0.3, reset_delay=False, **kw),
    "leaky_integer_threshold": lambda **kw: snntorch.Leaky(beta=1, threshold=1, **kw),
    "leaky_no_surrogate": lambda **kw: snntorch.Leaky(beta=0.5, surrogate_disable=True, **kw),
    "leaky_fast_sigmoid": lambda **kw: snntorch.Leaky(beta=0.5, spike_grad=surrogate.fast_sigmoid(slope=25), **kw),
    "lapicque_subtract": lambda **kw: snntorch.Lapicque(beta=0.5, **kw),
    "lapicque_zero": lambda **kw: snntorch.Lapicque(beta=0.5, reset_mechanism="zero", **kw),
    "lapicque_none": lambda **kw: snntorch.Lapicque(beta=0.5, reset_mechanism="none", **kw),
    "lapicque_circuit": lambda **kw: snntorch.Lapicque(R=3.0, C=1.7, time_step=0.5, **kw),
    "synaptic_subtract": lambda **kw: snntorch.Synaptic(alpha=0.5, beta=0.75, **kw),
    "synaptic_zero": lambda **kw: snntorch.Synaptic(alpha=0.5, beta=0.75, reset_mechanism="zero", **kw),
    "synaptic_zero_prompt": lambda **kw: snntorch.Synaptic(
        alpha=0.5, beta=0.75, reset_mechanism="zero", reset_delay=False, **kw
    ),
    "synaptic_none": lambda **kw: snntorch.Synaptic(alpha=0.9, beta=0.8, reset_mechanism="none", **kw),
    "alpha_zero": lambda **kw: snntorch.Alpha(alpha=0.875, beta=0.5, **kw),
    "alpha_subtract": lambda **kw: snntorch.Alpha(alpha=0.9, beta=0.8, reset_mechanism="subtract", **kw),
    "alpha_none": lambda **kw: snntorch.Alpha(alpha=0.75, beta=0.5, reset_mechanism="none", **kw),
    "alpha_per_neuron": lambda **kw: snntorch.Alpha(
        alpha=PER_NEURON.clamp(max=0.9) + 0.0625, beta=PER_NEURON / 2, **kw
    ),
    **{
        f"rleaky_{name}": lambda settings=settings, **kw: snntorch.RLeaky(
            beta=0.875, linear_features=6, **settings, **kw
        )
        for name, settings in LEAKY.items()
    },
    "rleaky_one_to_one": lambda **kw: snntorch.RLeaky(beta=0.75, all_to_all=False, V=0.5, **kw),
    "rleaky_one_to_one_per_neuron": lambda **kw: snntorch.RLeaky(
        beta=PER_NEURON, all_to_all=False, V=PER_NEURON - 0.5, learn_recurrent=False, **kw
    ),
    **{
        f"rsynaptic_{reset}": lambda reset=reset, **kw: snntorch.RSynaptic(
            alpha=0.75, beta=0.625, linear_features=6, reset_mechanism=reset, **kw
        )
        for reset in ("subtract", "zero", "none")
    },
    "rsynaptic_one_to_one": lambda **kw: snntorch.RSynaptic(alpha=0.9, beta=0.8, all_to_all=False, V=-0.25, **kw),
}


#: class -> state variable of the graph -> snnTorch's name of it
STATE = {
    "Leaky": {"v": "mem"},
    "Lapicque": {"v": "mem"},
    "Synaptic": {"v": "mem", "i": "syn"},
    "RLeaky": {"v": "mem"},
    "RSynaptic": {"v": "mem", "i": "syn"},
    "Alpha": {"v": "mem", "e": "syn_exc", "i": "syn_inh"},
}


class Explicit(nn.Module):
    """Two layers, states handed from step to step, everything recorded."""

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(5, 6), make()
        self.fc2, self.lif2 = nn.Linear(6, 6), make()

    def forward(self, x: Tensor) -> Any:
        state1, state2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, membranes = [], []
        for step in range(STEPS):
            spk1, state1 = called(self.lif1, self.fc1(x[step]), state1)
            spk2, state2 = called(self.lif2, self.fc2(spk1), state2)
            spikes.append(spk2)
            membranes.append(last(state2))
        return torch.stack(spikes), torch.stack(membranes), spk1, last(state1)


class Hidden(nn.Module):
    """The same network with hidden states; ``output`` makes the last layer return its membrane."""

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(5, 6), make(init_hidden=True)
        self.fc2, self.lif2 = nn.Linear(6, 6), make(init_hidden=True, output=True)

    def forward(self, x: Tensor) -> Any:
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        spikes, membranes, firsts = [], [], []
        for step in range(STEPS):
            spk1 = self.lif1(self.fc1(x[step]))
            spk2, state = called(self.lif2, self.fc2(spk1), ())
            spikes.append(spk2)
            membranes.append(last(state))
            firsts.append(self.lif1.mem)
        return torch.stack(spikes), torch.stack(membranes), torch.stack(firsts)


def called(lif: nn.Module, current: Tensor, state: Any) -> tuple[Any, Any]:
    """Spikes and the new state, a tuple."""
    given = state if isinstance(state, tuple) else (state,)
    result = lif(current, *given)
    new = tuple(result[1 + i] for i in range(len(STATE[type(lif).__name__])))
    return result[0], (result[0], *new) if hasattr(lif, "recurrent") else new


def last(state: Any) -> Any:
    """The membrane of a state."""
    return state[-1]


def agree(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Ours equal to theirs in every output, and every membrane at the end; theirs is returned."""
    graph = trace(model, x)
    verify(graph)
    with torch.no_grad():
        theirs = model(x)
        interpreter = Interpreter(graph)
        ours = interpreter(x)
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)
    for node in graph.of("neuron"):
        module = model.get_submodule(node.path)
        for variable, value in interpreter.state[node.name].items():
            theirs_too = getattr(module, STATE[type(module).__name__][variable]).detach()
            torch.testing.assert_close(value, theirs_too, rtol=0, atol=0)
    return tuple(theirs)


@pytest.mark.parametrize("network", [Explicit, Hidden])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_equals_the_library(variant: str, network: type[nn.Module]) -> None:
    """Inputs are large enough that membranes stay above threshold for several steps."""
    model = network(VARIANTS[variant]).eval()
    for seed, name in enumerate(("fc1", "fc2", "lif1.recurrent", "lif2.recurrent"), 1):
        make_dyadic(dict(model.named_modules()).get(name, nn.Identity()), seed=seed)
    model.fc2.weight.data *= 4
    x = 4 * dyadic(STEPS, 3, 5, seed=3)
    spikes, membranes, *_ = agree(model, x)
    assert 0.02 < float(spikes.ne(0).float().mean()) < 0.98
    if variant == "leaky_subtract_prompt":  # the residue must matter for this one
        assert bool((membranes > 1).any())


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (5,), (4, 5, 5), (1,)], ids=str)
def test_parameters_broadcast_as_in_torch(shape: tuple[int, ...]) -> None:
    """Along the last axis, per channel with axes of 1, per neuron, or one for all."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, bias=False)
            self.lif = snntorch.Leaky(
                beta=0.5 + 0.25 * dyadic(*shape, seed=4), threshold=1 + 0.5 * dyadic(*shape, seed=5)
            )

        def forward(self, x: Tensor) -> Any:
            mem = self.lif.init_leaky()
            spikes = []
            for _ in range(STEPS):
                spk, mem = self.lif(self.conv(x), mem)
                spikes.append(spk)
            return torch.stack(spikes), mem

    model = Net().eval()
    make_dyadic(model.conv, seed=6)
    spikes, _ = agree(model, dyadic(2, 2, 7, 7, seed=7))
    assert 0 < spikes.mean() < 1


@pytest.mark.parametrize("kernel_size", [3, (1, 3)], ids=str)
def test_convolutional_recurrence(kernel_size: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, bias=False)
            self.lif = snntorch.RLeaky(beta=0.875, conv2d_channels=4, kernel_size=kernel_size)
            make_dyadic(self, seed=6)

        def forward(self, x: Tensor) -> Any:
            spk, mem = self.lif.init_rleaky()
            spikes = []
            for _ in range(STEPS):
                spk, mem = self.lif(self.conv(x), spk, mem)
                spikes.append(spk)
            return torch.stack(spikes), mem

    spikes, _ = agree(Net().eval(), dyadic(2, 2, 7, 7, seed=7))
    assert 0 < spikes.mean() < 1


def test_a_single_step_model_is_told_its_timesteps() -> None:
    """No loop in forward: hidden states carry on from call to call."""
    model = nn.Sequential(nn.Linear(4, 6), snntorch.Leaky(beta=0.5, init_hidden=True)).eval()
    make_dyadic(model, seed=8)
    x = dyadic(2, 4, seed=9)
    graph = trace(model, x, timesteps=STEPS)
    with torch.no_grad():
        theirs = torch.stack([model(x) for _ in range(STEPS)])
        ours = Interpreter(graph)(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with pytest.raises(ImportRefused, match="timesteps"):
        trace(model, x)


def test_the_membrane_of_a_hidden_neuron_is_read_after_the_loop() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 6), snntorch.Leaky(beta=0.5, init_hidden=True)

        def forward(self, x: Tensor) -> Any:
            self.lif.reset_mem()
            for _ in range(STEPS):
                spk = self.lif(self.fc(x))
            return spk, self.lif.mem

    model = Net().eval()
    make_dyadic(model, seed=8)
    agree(model, dyadic(2, 4, seed=9))


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "inhibition": (lambda: _inhibited(), ("lif", "Leaky.inhibition", "inhibition=False")),
    "state_quant": (lambda: snntorch.Leaky(beta=0.5, state_quant=torch.round), ("Leaky.state_quant",)),
    "spike_grad": (lambda: snntorch.Leaky(beta=0.5, spike_grad=torch.sigmoid), ("Leaky.spike_grad",)),
    "graded_zero": (lambda: snntorch.Leaky(beta=0.5, graded_spikes_factor=0.0), ("Leaky.graded_spikes_factor",)),
    "changed_reset": (lambda: _changed(), ("Leaky.reset_mechanism", "'zero'", "'subtract'")),
    "negative_threshold": (
        lambda: snntorch.Leaky(beta=0.5, threshold=-1.0, reset_mechanism="zero", reset_delay=False),
        ("Leaky.threshold", "negative"),
    ),
    "synaptic_prompt": (
        lambda: snntorch.Synaptic(alpha=0.5, beta=0.5, reset_delay=False),
        ("Synaptic.reset_delay", "reset_mechanism='zero'"),
    ),
    "rsynaptic_prompt": (
        lambda: snntorch.RSynaptic(alpha=0.5, beta=0.5, linear_features=6, reset_delay=False),
        ("RSynaptic.reset_delay", "does not follow"),
    ),
    "leaky_parallel": (lambda: snntorch.LeakyParallel(4, 6), ("lif: LeakyParallel",)),
    "per_neuron_shape": (lambda: snntorch.Leaky(beta=torch.rand(7)), ("Leaky.beta", "[7]", "[6]")),
}


def _inhibited() -> nn.Module:
    with pytest.warns(UserWarning, match="Inhibition"):
        return snntorch.Leaky(beta=0.5, inhibition=True)


def _changed() -> nn.Module:
    lif = snntorch.Leaky(beta=0.5, reset_mechanism="subtract")
    lif.reset_mechanism = "zero"
    return lif


class OneLayer(nn.Module):
    """A loop over one neuron, its state left to itself."""

    def __init__(self, lif: nn.Module) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 6), lif

    def forward(self, x: Tensor) -> Any:
        spikes = []
        for _ in range(4):
            result = self.lif(self.fc(x))
            spikes.append(result[0])
        return torch.stack(spikes)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_imported_is_refused_by_name(case: str) -> None:
    make, wanted = REFUSED[case]
    with pytest.raises(ImportRefused) as refused:
        trace(OneLayer(make()).eval(), dyadic(2, 4, seed=1))
    for text in wanted:
        assert text in str(refused.value)


def test_all_problems_are_reported_at_once() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6),
        snntorch.Leaky(beta=0.5, init_hidden=True, state_quant=torch.round),
        nn.Linear(6, 6),
        snntorch.Synaptic(alpha=0.5, beta=0.5, init_hidden=True, reset_delay=False),
    ).eval()
    with pytest.raises(ImportRefused) as refused:
        trace(model, dyadic(2, 4, seed=1), timesteps=4)
    assert {p.attribute for p in refused.value.problems} == {"state_quant", "reset_delay"}


class Recurrent(nn.Module):
    """A loop of as many steps as the neuron returns results."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.fc = snntorch.SLSTM(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        syn, mem = self.lif.init_slstm()
        outputs = []
        for _ in range(3):
            spk, syn, mem = self.lif(x, syn, mem)
            outputs.append(self.fc(spk))
        return torch.stack(outputs)


class Encoding(OneLayer):
    """A code that cannot be imported, read for as many timesteps as the example has."""

    def forward(self, x: Tensor) -> Any:
        code = snntorch.spikegen.delta(x, threshold=0.25)
        return torch.stack([self.lif(self.fc(code[t]))[0] for t in range(x.shape[0])])


@pytest.mark.parametrize("case", ["SLSTM", "delta"])
def test_the_reading_that_names_the_cause_is_told(case: str) -> None:
    """Five samples may be five timesteps, but what that reading complains of is not the model's fault."""
    model = Recurrent() if case == "SLSTM" else Encoding(snntorch.Leaky(beta=0.5))
    with pytest.raises(ImportRefused) as refused:
        trace(model.eval(), dyadic(5, 4) if case == "SLSTM" else dyadic(6, 5, 4))
    assert [case in str(problem) for problem in refused.value.problems] == [True]
