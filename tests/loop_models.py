"""Shared by the tests of time loops: a model made of a forward function, and its comparison with the library's run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from frontend_models import make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify

Forward = Callable[..., Any]


class Written(nn.Module):
    """``fc1 -> lif1 -> fc2 -> lif2`` with a forward of the test's own, run for ``steps`` timesteps."""

    def __init__(self, forward: Forward, lif: Callable[..., nn.Module], steps: int = 8, **modules: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 6)
        self.lif1, self.lif2 = lif(), lif()
        for name, module in modules.items():
            setattr(self, name, module)
        self.steps, self.written = steps, forward
        make_dyadic(self, seed=1)
        self.fc1.weight.data *= 2
        self.fc2.weight.data *= 4

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


def agree(model: nn.Module, x: Tensor, reset: Callable[[nn.Module], Any] | None = None) -> Graph:
    """The imported graph, whose results equal the model's own, bit for bit."""
    graph = trace(model, x)
    verify(graph)
    if reset is not None:
        reset(model)
    with torch.no_grad():
        theirs, ours = model(x), Interpreter(graph)(x)
    theirs = list(theirs.values()) if isinstance(theirs, dict) else theirs
    pairs = [(ours, theirs)] if isinstance(theirs, Tensor) else list(zip(ours, theirs, strict=True))
    for mine, wanted in pairs:
        wanted = torch.stack(wanted) if isinstance(wanted, list) else wanted
        torch.testing.assert_close(mine, wanted, rtol=0, atol=0)
    assert any(bool(mine.ne(0).any()) for mine, _ in pairs)
    return graph
