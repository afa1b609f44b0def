"""The layouts that a network's caller may use, and models evaluated in theirs."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import ImportRefused, LdsnnError
from ldsnn_compiler.evaluate import at_batch, interpreted, module_scores, user_layout
from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.layouts import IN_TIME, to_caller, to_run
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.types import Stream

SHAPES = {"sequence": (8, 3, 5), "batch_first": (3, 8, 5), "folded": (24, 5)}


def network(time: str) -> Graph:
    """A leaky neuron for each of five inputs over eight timesteps."""
    graph = Graph("net", 8)
    x = graph.add("input", name="x", type=Stream(8, Fraction(1), (5,)), time=time).result
    graph.add("output", [graph.add("neuron", [x], path="n", neuron=neuron("leaky")).result], name="y", time=time)
    return graph


@pytest.mark.parametrize("time", IN_TIME)
def test_a_layout_is_another_view_of_the_same_run(time: str) -> None:
    graph, run = network(time), 2 * torch.rand(8, 3, 5, generator=torch.Generator().manual_seed(1))
    x = to_caller(graph.inputs[0], run)
    assert x.shape == SHAPES[time] and torch.equal(to_run(graph.inputs[0], x), run)
    (wanted,) = Interpreter(graph).run(run)
    shown = to_caller(graph.outputs[0], wanted)
    assert wanted.any() and torch.equal(Interpreter(graph)(x), shown)
    assert torch.equal(compile(graph, batch=None)(x), shown)
    assert parse_graph(graph_text(graph)).inputs[0]["time"] == time


@pytest.mark.parametrize("time", IN_TIME)
def test_samples_become_what_the_caller_passes(time: str) -> None:
    """Data sets hold samples, each with its timesteps."""
    samples = torch.rand(3, 8, 5)
    graph = network(time)
    assert user_layout(graph, samples).shape == SHAPES[time]
    (wanted,) = Interpreter(graph).run(samples.transpose(0, 1))
    assert torch.equal(interpreted(graph, samples)[0], wanted.mean(0))


def test_what_does_not_fit_a_layout_is_an_error() -> None:
    with pytest.raises(LdsnnError, match="multiple of 8 rows, the timesteps, found 9"):
        Interpreter(network("folded"))(torch.rand(9, 5))
    with pytest.raises(LdsnnError, match=r"expected data \[8, N, 5\], found \[5\]"):
        Interpreter(network("batch_first"))(torch.rand(5))


class Turned(nn.Module):
    """Puts the batch first at its end."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


def test_only_an_output_may_put_the_batch_first_where_no_library_does() -> None:
    graph = trace(Turned(), torch.rand(8, 3, 5), sequence=True)
    assert (graph.inputs[0]["time"], graph.outputs[0]["time"]) == ("sequence", "batch_first")
    with pytest.raises(ImportRefused, match=r"got \[N, T, 5\]"):
        trace(nn.Sequential(Turned(), nn.Conv1d(5, 2, 1)), torch.rand(8, 3, 5), sequence=True)


def test_a_model_that_fails_on_the_data_is_named() -> None:
    graph = trace(nn.Identity(), torch.rand(2, 20))
    with pytest.raises(LdsnnError, match=r"Linear: fails on data of shape \[4, 20\], RuntimeError"):
        module_scores(nn.Linear(5, 3), torch.rand(4, 20), graph)


def test_layers_told_a_batch_are_told_another_for_a_while() -> None:
    layer = nn.Identity()
    layer.batch_size, layer.num_timesteps = 2, -1
    with pytest.raises(KeyError), at_batch(nn.Sequential(layer), 5):
        assert layer.batch_size == 5
        raise KeyError
    assert layer.batch_size == 2
