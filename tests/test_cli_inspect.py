"""Inspection and drawing: costs without data are those of dense work, boxes do not overlap, long edges go around."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import combinations
from xml.etree import ElementTree

import pytest
import torch

from ldsnn_compiler.diff import diff, first_divergence
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.inspect import costs_json, dense_updates, dot, node_costs
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.types import Stream
from ldsnn_compiler.svg import svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def residual() -> Graph:
    """input -> conv -> neuron -> add with the input -> neuron -> output."""
    graph = Graph("residual <&>", 4)
    x = graph.add("input", name="x", type=Stream(4, Fraction(1), (2, 5, 5))).result
    weight = graph.tensor("w", torch.ones(3, 2, 3, 3))
    window = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    a = graph.add("conv2d", [x], path="conv", weight=weight, **window).result
    a = graph.add("neuron", [a], path="sn1", neuron=neuron("if")).result
    b = graph.add("conv2d", [x], path="short", weight=graph.tensor("v", torch.ones(3, 2, 3, 3)), **window).result
    a = graph.add("add", [a, b], path="add").result
    graph.add("output", [graph.add("neuron", [a], path="sn2", neuron=neuron("if")).result], name="out")
    return graph


def test_dense_updates_are_multiply_adds_exact_at_borders(residual: Graph) -> None:
    inside, edge = 13 * 13, 5 * 5 * 9
    assert dense_updates(residual, residual.node("conv")) == 4 * 2 * 3 * inside < 4 * 2 * 3 * edge
    assert dense_updates(residual, residual.node("sn1")) == 0


def test_costs_are_measured_only_with_data(residual: Graph) -> None:
    bare = {c.name: c for c in node_costs(residual)}
    assert bare["sn1"].density is None and bare["conv"].synaptic_updates is None
    x = torch.zeros(4, 2, 2, 5, 5)
    x[:, :, 0, 2, 2] = 1.0
    found = {c.name: c for c in node_costs(residual, x)}
    assert found["conv"].synaptic_updates == 4 * 9 * 3 and found["conv"].input_density == 1 / 50
    assert found["sn1"].neurons_evaluated == 4 * 75
    assert costs_json(list(found.values()))[0]["name"] == "x"


def test_dot_has_a_line_for_every_node_and_operand(residual: Graph) -> None:
    text = dot(residual, node_costs(residual))
    assert text.count(" -> ") == sum(len(n.operands) for n in residual.nodes)
    assert len(re.findall(r"^  \"[^\"]+\" \[label=", text, re.M)) == len(residual)


def test_svg_is_self_contained_and_its_boxes_are_apart(residual: Graph) -> None:
    text = svg(residual, node_costs(residual, torch.ones(4, 1, 2, 5, 5)))
    root = ElementTree.fromstring(text)
    assert "href" not in text and root.find(f"{SVG}title").text == "residual <&>"  # type: ignore[union-attr]
    boxes = [
        tuple(float(r.get(k, "0")) for k in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.get("rx")
    ]
    assert len(boxes) == len(residual)
    for (ax, ay, aw, ah), (bx, by, bw, bh) in combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)


class _Model(torch.nn.Module):
    """Two linear layers called once a timestep, the second twice in each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.b(self.b(self.a(step))) for step in x])


def _graph_of(model: _Model) -> Graph:
    graph = Graph("twice", 3)
    x = graph.add("input", name="x", type=Stream(3, Fraction(1), (4,))).result
    for path, layer in (("a", model.a), ("b", model.b), ("b#2", model.b)):
        weight, bias = graph.tensor(f"{path}.w", layer.weight), graph.tensor(f"{path}.b", layer.bias)
        x = graph.add("linear", [x], path=path, weight=weight, bias=bias).result
    graph.add("output", [x], name="out")
    return graph


def test_diff_tells_the_uses_of_one_module_apart() -> None:
    model, x = _Model(), torch.rand(3, 2, 4)
    graph = _graph_of(model)
    layers = diff(graph, model, x)
    assert [layer.path for layer in layers] == ["a", "b", "b#2", "out"]
    assert first_divergence(layers) is None and all(not layer.why and layer.numbers == 24 for layer in layers)
    graph.set_attrs(graph.node("b_2"), weight=graph.tensor("other", model.b.weight * 1.1))
    first = first_divergence(diff(graph, model, x))
    assert first is not None and first.path == "b#2" and first.differing > 0


def test_diff_sees_nans_and_names_what_cannot_be_compared() -> None:
    model, x = _Model(), torch.rand(3, 2, 4)
    graph = _graph_of(model)
    graph.set_attrs(graph.node("a"), weight=graph.tensor("broken", torch.full((4, 4), torch.nan)))
    first = first_divergence(diff(graph, model, x))
    assert first is not None and first.path == "a"
    with pytest.raises(LdsnnError, match=r"_Model: fails on data of shape \[3, 2, 5\], RuntimeError"):
        diff(graph, model, torch.rand(3, 2, 5))
    graph.add("output", [graph.node("a").result])
    with pytest.raises(LdsnnError, match="the model gives 1 outputs, the graph has 2"):
        diff(graph, model, x)
