"""Recurrent cells built by front ends: the same bits as a time loop in PyTorch, interpreted and compiled."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from frontend_models import STEPS, dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.frontend.context import Context
from ldsnn_compiler.frontend.recurrence import looped, recurrent
from ldsnn_compiler.frontend.registry import FrontEnd
from ldsnn_compiler.frontend.tracer import Imported, import_model
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.ir.verify import verify


class Cell(nn.Module):
    """``v = (0.9 v + x) + back(s)``, hard reset above 1; ``[T, N, ...]`` in, spikes out. ``first``: x and back(s) are
    added first."""

    def __init__(self, back: nn.Module, first: bool = False) -> None:
        super().__init__()
        self.back, self.first = back, first
        make_dyadic(back)

    def forward(self, x_seq: Tensor) -> Tensor:
        v = s = torch.zeros_like(x_seq[0])
        record = []
        for x in x_seq:
            v = 0.9 * v + (x + self.back(s)) if self.first else 0.9 * v + x + self.back(s)
            s = (v > 1.0).float()
            v = (1 - s) * v
            record.append(s)
        self.v = v
        return torch.stack(record)


class Container(nn.Module):
    """``y[t] = fc(cat(x[t], y[t - 1]))``, with a threshold behind it if it fires."""

    def __init__(self, fires: bool) -> None:
        super().__init__()
        self.fc, self.fires = nn.Linear(6 + 4, 4), fires
        make_dyadic(self.fc)

    def forward(self, x_seq: Tensor) -> Tensor:
        y, record = torch.zeros(x_seq.shape[1], 4), []
        for x in x_seq:
            y = self.fc(torch.cat([x, y], dim=1))
            y = (y >= 0.25).float() if self.fires else 0.125 * y
            record.append(y)
        return torch.stack(record)


def _cell(m: Cell, ctx: Context, x: Any) -> Any:
    kind = neuron("leaky", beta=0.9, compare="gt", reset="hard", feedback=not m.first)
    node = recurrent(ctx, x, kind, lambda s: ctx.call(m.back, f"{ctx.site.module}.back", s))
    return x.like(node.result), x.like(node.results[1])


def _container(m: Container, ctx: Context, x: Any) -> Any:
    def body(before: Any) -> Any:
        both = before.like(ctx.emit("concat", ctx.each_step(x).value, before.value, part="both").result)
        y = ctx.call(m.fc, f"{ctx.site.module}.fc", both)
        return ctx.layer("threshold", y, at=0.25, part="fire") if m.fires else ctx.layer("scale", y, factor=0.125)

    return looped(ctx, x, (4,), body)


TABLE = FrontEnd("loops of this test", modules={Cell: _cell, Container: _container})


class Net(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


def imported(inner: nn.Module, x: Tensor, timesteps: int | None = STEPS) -> Imported:
    return import_model(Net(inner), x, timesteps, extra=(TABLE,), sequence=timesteps is not None)


CELLS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 6), (6,)),
    "linear_without_bias": (lambda: nn.Linear(6, 6, bias=False), (6,)),
    "conv": (lambda: nn.Conv2d(3, 3, 3, padding=1), (3, 4, 5)),
}


@pytest.mark.parametrize(("name", "first"), [*((name, False) for name in CELLS), ("linear", True)])
def test_a_recurrent_cell_is_the_loop_bit_for_bit(name: str, first: bool) -> None:
    """``first``: the two currents are added before the neuron."""
    back, shape = CELLS[name]
    cell = Cell(back(), first)
    x = 2 * dyadic(STEPS, 3, *shape, seed=5)
    graph = imported(cell, x).graph
    verify(graph)
    assert graph_text(parse_graph(graph_text(graph), graph.tensors)) == graph_text(graph)
    compiled, interpreter = compile(graph, batch=3), Interpreter(graph)
    with torch.no_grad():
        spikes = cell(x)
        for run in (interpreter, compiled):
            assert torch.equal(run(x)[0], spikes)
            run.reset()
            streamed = torch.cat([run.step(x[t : t + 1])[0] for t in range(STEPS)])
            assert torch.equal(streamed, spikes)
            assert torch.equal(run.state["inner"]["v"], cell.v)
            assert torch.equal(run.state["inner.before"]["held"][0], spikes[-1])
    assert 0 < float(spikes.mean()) < 1


@pytest.mark.parametrize("fires", [True, False])
def test_a_loop_around_any_layers(fires: bool) -> None:
    model, x = Container(fires), dyadic(STEPS, 3, 6, seed=6)
    graph = imported(model, x).graph
    verify(graph)
    with torch.no_grad():
        assert torch.equal(Interpreter(graph)(x), model(x))
        assert torch.allclose(compile(graph, batch=3)(x), model(x), rtol=0, atol=0 if fires else 1e-6)
    (delay,) = graph.of("delay")
    assert delay.type.signal.is_event == fires


def test_a_cell_needs_timesteps() -> None:
    (problem,) = imported(Cell(nn.Linear(6, 6)), dyadic(3, 6), None).problems
    assert problem.message == "expects [T, N, ...], got [N, 6]"


def test_a_loop_gives_back_the_shape_that_it_takes() -> None:
    table = FrontEnd("wrong", modules={Container: lambda m, ctx, x: looped(ctx, x, (3,), lambda y: ctx.each_step(x))})
    result = import_model(Net(Container(True)), dyadic(STEPS, 3, 6), STEPS, extra=(table,), sequence=True)
    assert "feeds back [N, 6] in each timestep, where it takes [3]" in [p.message for p in result.problems]


def test_a_second_operand_needs_a_program_that_reads_it_and_its_shape() -> None:
    graph = Graph("net", STEPS)
    x, y = (graph.add("input", type=Stream(STEPS, Fraction(1), (size,))).result for size in (3, 4))
    with pytest.raises(LdsnnError, match="the neuron takes x, it has 2 operands"):
        graph.add("neuron", [x, x], neuron=neuron("leaky"), path="a")
    with pytest.raises(LdsnnError, match="the neuron takes x and feedback, it has 1 operands"):
        graph.add("neuron", [x], neuron=neuron("leaky", feedback=True), path="a")
    with pytest.raises(LdsnnError, match="operands differ in shape"):
        graph.add("neuron", [x, y], neuron=neuron("leaky", feedback=True), path="a")


def test_a_second_operand_need_not_come_back_from_the_cell() -> None:
    graph = Graph("net", STEPS)
    x, y = (graph.add("input", type=Stream(STEPS, Fraction(1), (5,))).result for _ in range(2))
    cell = neuron("cuba_lif", alpha=0.7, beta=0.9, reset="hard", feedback=True)
    graph.add("output", [graph.add("neuron", [x, y], neuron=cell, path="cell").result])
    data = (dyadic(STEPS, 3, 5, seed=7), dyadic(STEPS, 3, 5, seed=8))
    assert torch.equal(compile(graph, batch=3)(*data), Interpreter(graph)(*data))
