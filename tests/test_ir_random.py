"""Properties of random legal networks: their text reads back identically, they verify, and no corruption passes."""

from __future__ import annotations

import pytest
import torch
from graphs import networks, run
from hypothesis import given, settings
from hypothesis import strategies as st

from ldsnn_compiler.errors import VerifyError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify


@settings(max_examples=60, deadline=None)
@given(networks())
def test_text_reads_back(graph: Graph) -> None:
    verify(graph)
    text = graph_text(graph)
    again = parse_graph(text, graph.tensors)
    verify(again)
    assert graph_text(again) == text
    assert graph_text(graph.clone()) == text


@settings(max_examples=20, deadline=None)
@given(networks())
def test_a_graph_read_back_computes_the_same(graph: Graph) -> None:
    again = parse_graph(graph_text(graph), graph.tensors)
    assert all(torch.equal(a, b) for a, b in zip(run(graph), run(again), strict=True))


@settings(max_examples=60, deadline=None)
@given(networks(), st.data())
def test_corruption_is_caught(graph: Graph, data: st.DataObject) -> None:
    """Whatever is broken in whichever node, verification fails, by a rule that speaks of it."""
    node = data.draw(st.sampled_from([n for n in graph.nodes if n.operands]), label="node")
    value = node.operands[0]
    how = data.draw(st.sampled_from(["time", "shape", "edge", "attribute"]), label="corruption")
    if how == "time":
        value.type = value.type.with_(timesteps=value.type.timesteps + 1)
    elif how == "shape":
        value.type = value.type.with_(shape=(*value.type.shape, 7))
    elif how == "edge":
        graph.dag.remove_edge(value.node.name, node.name, key=(value.index, 0))
    else:
        node._attrs["no_such_attribute"] = 1
    rules = {"time": "types|cycles|duration", "shape": "types|cycles", "edge": "uses", "attribute": "attributes"}
    with pytest.raises(VerifyError, match=rf"\[({rules[how]})\]"):
        verify(graph)
