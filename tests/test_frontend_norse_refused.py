"""What the Norse front end does not import: refused by name, with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from frontend_models import dyadic
from norse_models import CELLS, SNN, box, drive, lif, snn
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import trace

pytestmark = pytest.mark.norse


class OwnStart(snn.LIF if snn else nn.Module):  # type: ignore[misc]
    """Starts elsewhere."""

    def initial_state(self, x: Tensor) -> Any:
        return super().initial_state(x)


def _own_step(x: Tensor, state: Any, p: Any, dt: float) -> Any:
    return x, state


def _own_reset(z: Tensor, v: Tensor, reset: Tensor, th: Tensor) -> Tensor:
    return v


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "exponential": (lambda: snn.LIFAdEx(), ("LIFAdEx", "no neuron program has exp")),
    "refractory": (lambda: snn.Lift(snn.LIFRefracCell()), ("0.lifted_module: LIFRefracCell", "use LIF,")),
    "izhikevich": (lambda: snn.Lift(snn.CobaLIFCell(5, 5)), ("CobaLIFCell", "use LIF,")),
    "encoder": (lambda: snn.PoissonEncoder(5), ("PoissonEncoder", "encode outside the network")),
    "own_step": (lambda: SNN(_own_step, lambda x: None, lif()), ("SNN.activation", "_own_step")),
    "own_start": (lambda: OwnStart(), ("OwnStart.state_fallback", "initial state")),
    "surrogate": (lambda: snn.LIF(lif()._replace(method="round")), ("LIF.p.method", "'round'", "'super'")),
    "own_reset": (
        lambda: snn.Lift(snn.LIFBoxCell(box()._replace(reset_method=_own_reset))),
        ("LIFBoxCell.p.reset_method", "reset_subtract"),
    ),
    "per_neuron_shape": (lambda: snn.LIF(lif(v_th=torch.rand(7))), ("LIF.v_th", "[7]", "[5]")),
    "outputs": (
        lambda: snn.Lift(snn.RecurrentSequential(snn.LIFCell(), output_modules=[0])),
        ("RecurrentSequential.output_modules", "feed back one output"),
    ),
    "encoder_leak": (
        lambda: snn.ConstantCurrentLIFEncoder(5, lif(v_leak=0.5)),
        ("ConstantCurrentLIFEncoder.p.v_leak", "LIFBoxCell"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_imported_is_refused_by_name(case: str) -> None:
    make, wanted = REFUSED[case]
    with pytest.raises(ImportRefused) as refused:
        trace(nn.Sequential(make()).eval(), drive(6), sequence=True)
    for text in wanted:
        assert text in str(refused.value)


class Cells(nn.Module):
    """A loop over one cell."""

    def __init__(self, step: Callable[..., Any]) -> None:
        super().__init__()
        self.lif, self.step = CELLS["lif"](), step

    def forward(self, x: Tensor) -> Any:
        state, values = None, []
        for current in x:
            z, state = self.step(self.lif, current, state)
            values.append(z)
        return torch.stack(values)


LOOPS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "forgotten": (
        lambda m, x, s: m(x),
        ("a fresh state in each of its 6 calls", "hand on the state"),
    ),
    "own_start": (
        lambda m, x, s: m(x, snn.LIFFeedForwardState(torch.ones(()), torch.ones(())) if s is None else s),
        ("LIFCell: starts from a state that is not zero (start from None)",),
    ),
    "current": (lambda m, x, s: ((r := m(x, s))[1].i, r[1]), ("i cannot be recorded; of this state only: v",)),
}


@pytest.mark.parametrize("case", LOOPS)
def test_loops_that_lose_or_change_state(case: str) -> None:
    step, wanted = LOOPS[case]
    with pytest.raises(ImportRefused) as refused:
        trace(Cells(step).eval(), torch.ones(6, 3, 6), sequence=True)
    for text in wanted:
        assert text in str(refused.value)


class Fresh(nn.Module):
    """One timestep that starts from a fresh state in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = CELLS["lif"]()

    def forward(self, x: Tensor) -> Any:
        return self.lif(x)[0]


def test_code_for_one_timestep_must_take_its_state() -> None:
    with pytest.raises(ImportRefused, match=r"lif.*starts from a fresh state in each call of forward.*state=None"):
        trace(Fresh().eval(), dyadic(3, 6), 5)


def test_a_layer_is_not_handed_a_state() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.LIF()

        def forward(self, x: Tensor) -> Any:
            z, state = self.lif(x)
            return self.lif(z, state)[0]

    with pytest.raises(ImportRefused, match=r"LIF.*state.*cannot be followed"):
        trace(Net().eval(), drive(6), sequence=True)


def test_a_state_alone_is_no_output() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = snn.LIF()

        def forward(self, x: Tensor) -> Any:
            return self.lif(x)[1]

    with pytest.raises(ImportRefused, match="returns nothing"):
        trace(Net().eval(), drive(6), sequence=True)


def test_an_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ldsnn_compiler.frontend import norse

    monkeypatch.setattr(norse, "version", lambda _: "0.0.7")
    with pytest.raises(ImportRefused, match=r"Norse 0\.0\.7 .*use Norse 1\.1"):
        trace(snn.SequentialState(snn.LIF()).eval(), drive(6), sequence=True)
