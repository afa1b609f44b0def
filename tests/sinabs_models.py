"""Shared by the Sinabs tests: every variant of every neuron, in its three forms, and networks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from frontend_models import STEPS, dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

try:
    import sinabs.layers as sl
    from sinabs.activation import MaxSpike, MembraneReset, MembraneSubtract, SingleSpike
    from sinabs.layers.alif import ALIFSqueeze
except ModuleNotFoundError:  # the marker skips every test that uses them
    sl = MaxSpike = MembraneReset = MembraneSubtract = SingleSpike = ALIFSqueeze = None

PER_NEURON = torch.tensor([2.0, 3.0, 5.0, 8.0, 13.0, 21.0])
THRESHOLDS = torch.tensor([0.5, 0.75, 1.0, 1.25, 1.5, 2.0])

#: name -> constructor arguments; the word before the first underscore is the class
VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "iaf_": lambda: {},
    "iaf_single": lambda: {"spike_fn": SingleSpike},
    "iaf_max": lambda: {"spike_fn": MaxSpike(2)},
    "iaf_max_unbounded": lambda: {"spike_fn": MaxSpike()},
    "iaf_floor": lambda: {"min_v_mem": -0.3},
    "iaf_single_floor": lambda: {"spike_fn": SingleSpike, "min_v_mem": -1.0},
    "iaf_reset": lambda: {"reset_fn": MembraneReset()},
    "iaf_single_reset_floor": lambda: {"spike_fn": SingleSpike, "reset_fn": MembraneReset(), "min_v_mem": -0.7},
    "iaf_reset_to_value": lambda: {"reset_fn": MembraneReset(-0.1), "min_v_mem": -3.0},
    "iaf_own_charge": lambda: {"reset_fn": MembraneSubtract(0.7)},
    "iaf_single_own_charge": lambda: {"spike_fn": SingleSpike, "reset_fn": MembraneSubtract(1.25)},
    "iaf_threshold": lambda: {"spike_threshold": torch.tensor(0.3)},
    "iaf_thresholds": lambda: {"spike_threshold": THRESHOLDS},
    "iaf_synapse": lambda: {"tau_syn": 3.0},
    "iaf_synapse_single_floor": lambda: {"tau_syn": 7.0, "spike_fn": SingleSpike, "min_v_mem": -1.5},
    "lif_": lambda: {"tau_mem": 10.0, "spike_threshold": torch.tensor(0.125)},
    "lif_single": lambda: {"tau_mem": 5.0, "spike_fn": SingleSpike, "spike_threshold": torch.tensor(0.25)},
    "lif_unnormed": lambda: {"tau_mem": 10.0, "norm_input": False},
    "lif_unnormed_single_floor": lambda: {
        "tau_mem": 20.0, "norm_input": False, "spike_fn": SingleSpike, "min_v_mem": -0.4,
    },
    "lif_trained_alphas": lambda: {
        "tau_mem": 4.0, "tau_syn": 2.0, "train_alphas": True, "spike_threshold": torch.tensor(0.25),
    },
    "lif_per_neuron": lambda: {"tau_mem": PER_NEURON, "tau_syn": PER_NEURON.flip(0), "spike_threshold": THRESHOLDS},
    "lif_synapse": lambda: {"tau_mem": 20.0, "tau_syn": 5.0},
    "lif_synapse_unnormed": lambda: {"tau_mem": 6.0, "tau_syn": 3.0, "norm_input": False},
    "lif_synapse_reset_floor": lambda: {
        "tau_mem": 8.0, "tau_syn": 4.0, "reset_fn": MembraneReset(), "min_v_mem": -0.2, "norm_input": False,
    },
    "lif_reset_to_value": lambda: {"tau_mem": 2.0, "reset_fn": MembraneReset(0.3), "spike_fn": SingleSpike},
    "alif_": lambda: {"tau_mem": 10.0, "tau_adapt": 20.0, "norm_input": False},
    "alif_normed": lambda: {"tau_mem": 5.0, "tau_adapt": 10.0, "spike_threshold": torch.tensor(0.2)},
    "alif_multi": lambda: {"tau_mem": 10.0, "tau_adapt": 20.0, "spike_fn": MaxSpike(), "norm_input": False},
    "alif_scale": lambda: {"tau_mem": 10.0, "tau_adapt": 7.0, "adapt_scale": 0.3, "norm_input": False},
    "alif_reset_floor": lambda: {
        "tau_mem": 10.0, "tau_adapt": 20.0, "reset_fn": MembraneReset(), "min_v_mem": -0.3, "norm_input": False,
    },
    "alif_own_charge": lambda: {
        "tau_mem": 10.0, "tau_adapt": 20.0, "reset_fn": MembraneSubtract(0.9), "norm_input": False,
    },
    "alif_synapse": lambda: {"tau_mem": 10.0, "tau_adapt": 20.0, "tau_syn": 6.0, "spike_threshold": torch.tensor(0.3)},
    "alif_trained_alphas": lambda: {
        "tau_mem": 10.0, "tau_adapt": 20.0, "tau_syn": 6.0, "train_alphas": True, "norm_input": False,
    },
    "alif_per_neuron": lambda: {
        "tau_mem": PER_NEURON, "tau_adapt": PER_NEURON.flip(0), "adapt_scale": THRESHOLDS, "norm_input": False,
    },
    "expleak_": lambda: {"tau_mem": 10.0},
    "expleak_normed": lambda: {"tau_mem": 10.0, "norm_input": True},
    "expleak_floor": lambda: {"tau_mem": 10.0, "min_v_mem": -0.3},
    "expleak_per_neuron": lambda: {"tau_mem": PER_NEURON, "train_alphas": True, "norm_input": True},
}  # fmt: skip
RECURRENT = [name for name in VARIANTS if not name.startswith("expleak")]

#: state variable of a graph -> Sinabs' name of it
STATE = {"v": "v_mem", "i": "i_syn", "a": "b"}


def plain(variant: str) -> nn.Module:
    """A neuron that takes ``[N, T, ...]``."""
    kinds = {"iaf": sl.IAF, "lif": sl.LIF, "alif": sl.ALIF, "expleak": sl.ExpLeak}
    return kinds[variant.partition("_")[0]](**VARIANTS[variant]())


def squeezed(variant: str) -> nn.Module:
    """A neuron that takes ``[N*T, ...]``."""
    kinds = {"iaf": sl.IAFSqueeze, "lif": sl.LIFSqueeze, "alif": ALIFSqueeze, "expleak": sl.ExpLeakSqueeze}
    return kinds[variant.partition("_")[0]](num_timesteps=STEPS, **VARIANTS[variant]())


def recurrent(variant: str) -> nn.Module:
    """A neuron whose spikes come back, through weights that rather inhibit so that counts stay small."""
    kinds = {"iaf": sl.IAFRecurrent, "lif": sl.LIFRecurrent, "alif": sl.ALIFRecurrent}
    connect = nn.Linear(6, 6)
    connect.weight.data = dyadic(6, 6, seed=5, low=-8, high=4) / 4
    connect.bias.data = dyadic(6, seed=6, low=-4, high=6)
    return kinds[variant.partition("_")[0]](rec_connect=connect, **VARIANTS[variant]())


def network(make: Callable[[str], nn.Module], variant: str) -> nn.Sequential:
    """Two layers with dyadic weights; one where real numbers are emitted, whose sums have no exact order."""
    first, second = nn.Linear(5, 6), nn.Linear(6, 6)
    for seed, layer in enumerate((first, second)):
        make_dyadic(layer, seed=1 + 4 * seed)
    layers = [first, make(variant)]
    return nn.Sequential(*layers, *([] if variant.startswith("expleak") else [second, make(variant)]))


def inputs(*lead: int) -> Tensor:
    """Dyadic currents for :func:`network`, somewhat more excitation than inhibition."""
    return 2 * dyadic(*lead, 5, seed=3, low=-12, high=20)


def reset(model: nn.Module) -> None:
    """Every neuron as new."""
    for module in model.modules():
        if isinstance(module, sl.StatefulLayer):
            module.reset_states()


def assert_same_state(graph: Graph, state: dict[str, dict[str, Tensor]], model: nn.Module) -> None:
    """Every state variable equals the model's; ALIF does not keep its current."""
    compared = 0
    for node in graph.of("neuron"):
        module = model.get_submodule(node.path)
        for variable, value in state[node.name].items():
            if variable == "i" and isinstance(module, sl.ALIF):
                continue
            assert torch.equal(value, getattr(module, STATE[variable]).detach()), f"{node.path}.{variable}"
            compared += 1
    assert compared


def agree(model: nn.Module, x: Tensor) -> tuple[Graph, Tensor]:
    """Interpreted outputs and final state equal to Sinabs' own; the graph and the model's output."""
    reset(model.eval())
    graph = trace(model, x)
    verify(graph)
    interpreter = Interpreter(graph)
    with torch.no_grad():
        theirs, ours = model(x), interpreter(x)
    assert torch.equal(ours, theirs)
    assert_same_state(graph, interpreter.state, model)
    return graph, theirs
