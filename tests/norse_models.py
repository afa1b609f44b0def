"""Shared by the tests of the Norse front end: every variant as a cell or a layer, and their states compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from frontend_models import dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.ir.graph import Graph

try:
    import norse.torch as snn
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.module.snn import SNN
except ModuleNotFoundError:  # the marker skips every test that uses this file
    snn = reset_subtract = SNN = None

WIDTH = 6
PER_NEURON = torch.tensor([0.25, 0.5, 0.75, 0.5, 1.5, 0.875])
Make = Callable[[], nn.Module]


def tensors(**values: Any) -> dict[str, Tensor]:
    """Parameters as Norse wants them."""
    return {name: torch.as_tensor(value) for name, value in values.items()}


def lif(**values: Any) -> Any:
    return snn.LIFParameters(**tensors(**values))


def box(soft: bool = False, **values: Any) -> Any:
    return snn.LIFBoxParameters(**tensors(**values), **({"reset_method": reset_subtract} if soft else {}))


def lsnn(**values: Any) -> Any:
    return snn.LSNNParameters(**tensors(**values))


def iaf(**values: Any) -> Any:
    return snn.IAFParameters(**tensors(**values))


_SHIFTED: dict[str, Any] = {"v_leak": 0.3, "v_th": 0.9, "v_reset": -0.2}
_EACH: dict[str, Any] = {"tau_mem_inv": 100 * PER_NEURON, "v_th": PER_NEURON + 0.25, "v_reset": -PER_NEURON}

CELLS: dict[str, Make] = {
    "lif": lambda: snn.LIFCell(lif(v_th=0.5)),
    "lif_shifted": lambda: snn.LIFCell(lif(**_SHIFTED)),
    "lif_per_neuron": lambda: snn.LIFCell(lif(**_EACH, tau_syn_inv=150 * PER_NEURON)),
    "lif_slow": lambda: snn.LIFCell(lif(v_th=0.1), dt=0.0003),
    "lif_recurrent": lambda: snn.LIFRecurrentCell(WIDTH, WIDTH, lif(v_th=0.5)),
    "lif_recurrent_shifted": lambda: snn.LIFRecurrentCell(WIDTH, WIDTH, lif(**_SHIFTED), autapses=True),
    "lif_box": lambda: snn.LIFBoxCell(box(v_th=0.5)),
    "lif_box_shifted": lambda: snn.LIFBoxCell(box(**_SHIFTED), dt=0.003),
    "lif_box_soft": lambda: snn.LIFBoxCell(box(soft=True, v_th=0.3)),
    "iaf": lambda: snn.IAFCell(iaf(v_th=1.7, v_reset=-0.3)),
    "li": lambda: snn.LICell(snn.LIParameters(**tensors(v_leak=0.3, tau_syn_inv=70.0))),
    "li_box": lambda: snn.LIBoxCell(snn.LIBoxParameters(**tensors(v_leak=0.3, tau_mem_inv=70.0))),
    "li_linear": lambda: snn.LILinearCell(WIDTH, WIDTH),
    "lsnn": lambda: snn.LSNNCell(lsnn(v_th=0.4, beta=0.3, tau_adapt_inv=9.0)),
    "lsnn_shifted": lambda: snn.LSNNCell(lsnn(**_SHIFTED), adjoint=True),
    "lsnn_recurrent": lambda: snn.LSNNRecurrentCell(WIDTH, WIDTH, lsnn(v_th=0.4, beta=0.3, tau_adapt_inv=9.0)),
}
LAYERS: dict[str, Make] = {
    "lif": lambda: snn.LIF(lif(v_th=0.5)),
    "lif_shifted": lambda: snn.LIF(lif(**_SHIFTED)),
    "lif_recurrent": lambda: snn.LIFRecurrent(WIDTH, WIDTH, lif(v_th=0.5)),
    "iaf": lambda: snn.IAF(iaf(v_th=1.7, v_reset=-0.3)),
    "li": lambda: snn.LI(),
    "lsnn": lambda: snn.LSNN(lsnn(v_th=0.4, beta=0.3, tau_adapt_inv=9.0)),
    "lsnn_recurrent": lambda: snn.LSNNRecurrent(WIDTH, WIDTH, lsnn(v_th=0.4, beta=0.3, tau_adapt_inv=9.0)),
    "lif_box_lifted": lambda: snn.Lift(snn.LIFBoxCell(box(v_th=0.5))),
}


READOUTS = ("li", "li_box", "li_linear")
"""Variants that emit no spikes: what follows them is not exact in every order of summation."""


class TwoLayers(nn.Module):
    """One variant behind itself, or behind LIF if it does not spike."""

    def __init__(self, table: Mapping[str, Make], name: str) -> None:
        super().__init__()
        self.fc1, self.one = nn.Linear(5, WIDTH), table["lif" if name in READOUTS else name]()
        self.fc2, self.two = nn.Linear(WIDTH, WIDTH), table[name]()
        make_dyadic(self)
        self.fc2.weight.data *= 4


class Loop(TwoLayers):
    """States handed from step to step; values of the last layer and both states."""

    def forward(self, x: Tensor) -> Any:
        s1 = s2 = None
        values = []
        for step in range(x.shape[0]):
            z, s1 = self.one(self.fc1(x[step]), s1)
            z, s2 = self.two(self.fc2(z), s2)
            values.append(z)
        return torch.stack(values), {"one": s1, "two": s2}


class Layers(TwoLayers):
    """The same over ``[T, N, ...]``."""

    def forward(self, x: Tensor) -> Any:
        z, s1 = self.one(self.fc1(x))
        z, s2 = self.two(self.fc2(z))
        return z, {"one": s1, "two": s2}


def drive(steps: int, seed: int = 3) -> Tensor:
    """Input that makes every variant fire, some of the time."""
    return 4 * dyadic(steps, 3, 5, seed=seed)


def assert_states_equal(graph: Graph, ours: Any, theirs: dict[str, Any]) -> None:
    """Every state variable of every neuron, and the spikes that delays hold, against Norse's states by module path."""
    for path, state in theirs.items():
        node = next(n for n in graph.of("neuron") if n.path.split(".lifted")[0] == path)
        for name, value in ours[node.name].items():
            wanted = getattr(state, name).detach().expand_as(value)
            assert torch.equal(value, wanted), (path, name)
        if f"{path}.before" in ours:
            assert torch.equal(ours[f"{path}.before"]["held"][0], state.z), path
