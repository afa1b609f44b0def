"""Compiled code equals snnTorch's own run, bit for bit: every neuron variant side by side in one network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from test_frontend_snntorch import VARIANTS, called, last
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.frontend import trace

pytestmark = pytest.mark.snntorch


class SideBySide(nn.Module):
    """One layer's current into a neuron of each variant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 6)
        self.lifs = nn.ModuleDict({name: make() for name, make in VARIANTS.items()})
        make_dyadic(self.fc)
        for lif in self.lifs.values():
            make_dyadic(getattr(lif, "recurrent", nn.Identity()), seed=7)

    def forward(self, x: Tensor) -> Any:
        states: dict[str, Any] = dict.fromkeys(self.lifs, ())
        record: dict[str, list[Any]] = {name: [] for name in self.lifs}
        for step in range(STEPS):
            current = self.fc(x[step])
            for name, lif in self.lifs.items():
                spk, states[name] = called(lif, current, states[name])
                record[name].append(spk)
        return {name: (torch.stack(record[name]), last(states[name])) for name in record}


@pytest.mark.slow
def test_spikes_and_final_state_of_every_variant() -> None:
    model = SideBySide().eval()
    x = 4 * dyadic(STEPS, 3, 5, seed=3)
    compiled = compile(trace(model, x), batch=3)
    with torch.no_grad():
        theirs, ours = model(x), compiled(x)
    for step in range(STEPS):  # state is kept between steps, not after a whole run
        compiled.step(x[step : step + 1])
    for i, name in enumerate(VARIANTS):
        spikes, membrane = theirs[name]
        assert torch.equal(ours[2 * i], spikes), name
        assert torch.equal(ours[2 * i + 1], membrane), name
        assert torch.equal(compiled.state[f"lifs.{name}"]["v"], model.lifs[name].mem.detach()), name
        assert 0 < float(spikes.ne(0).float().mean()) < 1
