"""Every illegal change is caught, and by the rule that is about it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from zoo import STEPS, ZOO, build, finished, started

from ldsnn_compiler.errors import LdsnnError, VerifyError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import TensorRef, neuron
from ldsnn_compiler.ir.placement import Placement
from ldsnn_compiler.ir.verify import RULES, verify


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_is_legal(name: str) -> None:
    verify(build(name))


def _two_layers() -> Graph:
    graph, x = started((4,))
    first = graph.add("neuron", [x], neuron=neuron("if"), path="sn1", name="sn1")
    second = graph.add("neuron", [first.result], neuron=neuron("lif"), path="sn2", name="sn2")
    return finished(graph, second.result)


def foreign_operand(graph: Graph) -> None:
    graph.node("sn2")._operands = (_two_layers().node("sn1").result,)


def result_lost(graph: Graph) -> None:
    """A membrane that is read, and then no longer given."""
    graph.set_attrs(graph.node("sn1"), membrane=True)
    graph.add("output", [graph.node("sn1").results[1]])
    graph.set_attrs(graph.node("sn1"), membrane=False)


def stale_edge(graph: Graph) -> None:
    graph.dag.remove_edge("sn1", "sn2")


def cycle_without_delay(graph: Graph) -> None:
    graph.node("sn1")._operands = (graph.node("sn2").result,)
    graph._connect(graph.node("sn1"))


def operand_lost(graph: Graph) -> None:
    graph.node("sn2")._operands = ()
    graph._connect(graph.node("sn2"))


def unknown_attribute(graph: Graph) -> None:
    graph.node("sn1")._attrs["colour"] = "red"


def attribute_lost(graph: Graph) -> None:
    del graph.node("sn1")._attrs["neuron"]


def wrong_attribute_type(graph: Graph) -> None:
    graph.node("sn1")._attrs["membrane"] = "yes"


def tensor_lost(graph: Graph) -> None:
    graph.node("sn1")._attrs["neuron"] = neuron("if", threshold=TensorRef("gone"))


def wrong_type(graph: Graph) -> None:
    value = graph.node("sn1").result
    value.type = value.type.with_(shape=(5,))


def wrong_duration(graph: Graph) -> None:
    graph.base_timesteps = STEPS * 2


def no_output(graph: Graph) -> None:
    graph.erase(*graph.of("output"))


def used_output(graph: Graph) -> None:
    graph.add("scale", [graph.outputs[0].result])


def same_path(graph: Graph) -> None:
    graph.node("sn2").path = "sn1"


def no_path(graph: Graph) -> None:
    graph.node("sn2").path = ""


def too_many_substeps(graph: Graph) -> None:
    graph.set_attrs(graph.node("sn1"), neuron=neuron("if").retime(4, method="micro"))


def growing_state(graph: Graph) -> None:
    graph.set_attrs(graph.node("sn1"), neuron=neuron("leaky", beta=1.01))


def no_placement(graph: Graph) -> None:
    graph.place(graph.node("sn1"), None)


def bits_of_real(graph: Graph) -> None:
    graph.set_attrs(graph.node("sn1"), neuron=neuron("if", max_count=3))


def no_region(graph: Graph) -> None:
    graph.place(graph.node("sn1"), Placement("event", "bits"))


def mixed_orders(graph: Graph) -> None:
    graph.place(graph.node("sn2"), Placement("event", "bits", "r", "outside"))
    graph.place(graph.node("sn1"), Placement("event", "bits", "r", "inside"))


def region_around(graph: Graph) -> None:
    middle = graph.insert("scale", graph.node("sn1").result)
    graph.place(middle, Placement(region="other"))


CASES: list[tuple[Callable[[Graph], None], str, str]] = [
    (foreign_operand, "traced", "uses"),
    (result_lost, "traced", "uses"),
    (stale_edge, "traced", "uses"),
    (cycle_without_delay, "traced", "cycles"),
    (operand_lost, "traced", "arity"),
    (unknown_attribute, "traced", "attributes"),
    (attribute_lost, "traced", "attributes"),
    (wrong_attribute_type, "traced", "attributes"),
    (tensor_lost, "traced", "tensors"),
    (wrong_type, "traced", "types"),
    (wrong_duration, "traced", "duration"),
    (no_output, "traced", "ends"),
    (used_output, "traced", "ends"),
    (same_path, "traced", "paths"),
    (no_path, "traced", "paths"),
    (too_many_substeps, "scheduled", "substeps"),
    (growing_state, "scheduled", "stable"),
    (no_placement, "placed", "placed"),
    (bits_of_real, "placed", "forms"),
    (no_region, "fused", "regions"),
    (mixed_orders, "fused", "regions"),
    (region_around, "fused", "regions"),
]


@pytest.mark.parametrize(("change", "stage", "rule"), CASES, ids=[c.__name__ for c, _, _ in CASES])
def test_caught_by_its_rule(change: Callable[[Graph], None], stage: str, rule: str) -> None:
    graph = _two_layers()
    graph.stage = stage
    for node in graph.of("neuron"):
        graph.place(node, Placement("event", "bits", "r"))
    verify(graph)
    change(graph)
    with pytest.raises(VerifyError, match=rf"\[{rule}\]"):
        verify(graph)


def broken_charge(graph: Graph) -> None:
    graph.set_attrs(graph.node("cell"), neuron=graph.node("cell")["neuron"].with_(threshold=2.5))


def broken_ratio(graph: Graph) -> None:
    graph.set_attrs(graph.node("cell"), neuron=graph.node("cell")["neuron"].with_(beta=0.3))


def broken_weight(graph: Graph) -> None:
    graph.tensors["w"] = graph.tensors["w"] / 2


def broken_factor(graph: Graph) -> None:
    graph.set_attrs(graph.node("scale"), factor=0.5)


def broken_mean(graph: Graph) -> None:
    graph.set_attrs(graph.node("resample"), mode="mean")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("neuron_whole", broken_charge),
        ("neuron_whole", broken_ratio),
        ("conv2d_whole", broken_weight),
        ("quantize", broken_factor),
        ("resample_sum", broken_mean),
    ],
)
def test_whole_numbers_stay_whole(name: str, change: Callable[[Graph], None]) -> None:
    graph = build(name)
    verify(graph)
    change(graph)
    with pytest.raises(VerifyError, match=r"\[whole-numbers\]"):
        verify(graph)


def test_a_cycle_that_changes_time_is_caught() -> None:
    graph = build("delay_recurrent")
    value = graph.node("back").result
    value.type = value.type.with_(timesteps=4, dt=Fraction(2))
    with pytest.raises(VerifyError, match=r"\[cycles\]"):
        verify(graph)


def test_a_growing_state_may_be_looked_at_but_not_run() -> None:
    graph = _two_layers()
    growing_state(graph)
    verify(graph)
    with pytest.raises(VerifyError, match="the state grows without bound"):
        Interpreter(graph)


def test_a_cycle_is_not_placed_inside() -> None:
    graph = build("delay_recurrent")
    graph.stage = "placed"
    for node in graph.nodes:
        graph.place(node, Placement())
    with pytest.raises(VerifyError, match=r"\[recurrence\]"):
        verify(graph)


def test_every_rule_has_a_case() -> None:
    assert {r.name for r in RULES} == {rule for _, _, rule in CASES} | {"recurrence", "whole-numbers"}


def test_graph_refuses_at_once_and_names_all() -> None:
    graph, x = started((4,))
    with pytest.raises(LdsnnError) as caught:
        graph.add("resample", [x], mode="sideways", speed=3)
    assert len(caught.value.problems) == 3
    with pytest.raises(LdsnnError, match="differ in time"):
        slow = graph.add("resample", [x], dt=4)
        graph.add("add", [x, slow.result])
    with pytest.raises(LdsnnError, match="uses it"):
        graph.erase(graph.node("x"))
