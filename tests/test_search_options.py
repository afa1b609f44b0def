"""What each layer may become, and which layers stay as they are, by name."""

from __future__ import annotations

import pytest
from graphs import Net, networks
from hypothesis import given, settings

from ldsnn_compiler.errors import ScheduleError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.passes.assign_timesteps import apply_schedule
from ldsnn_compiler.schedule import LayerSchedule
from ldsnn_compiler.search.options import Uniform, space


def chain(*programs: object, timesteps: int = 8) -> Graph:
    """Linear layers with these neurons."""
    net = Net(timesteps)
    x = net.input((4,))
    for program in programs:
        x = net.neuron(net.linear(x, 4), program)  # type: ignore[arg-type]
    return net.output(net.op("readout", net.linear(x, 3), mode="mean"))


def texts(graph: Graph, spikes: str = "binary", **more: object) -> list[list[str]]:
    return [[str(c) for c in group.choices] for group in space(graph, spikes, **more).groups]  # type: ignore[arg-type]


def test_binary_uses_the_closed_form_or_the_oneshot_rule():
    found = texts(chain(neuron("if"), neuron("lif"), neuron("if", reset="hard")))
    assert found[0] == ["T=8 closed", "T=4 closed", "T=2 closed", "T=1 closed"]
    assert found[1] == found[2] == ["T=8 closed", "T=4 oneshot", "T=2 oneshot", "T=1 oneshot"]


def test_graded_adds_levels_up_to_the_ratio_and_micro():
    closed, leaky = texts(chain(neuron("if"), neuron("lif"), timesteps=4), "graded")
    assert closed == ["T=4 closed", "T=2 closed", "T=2 x2 closed", *(f"T=1{k} closed" for k in ("", " x2", " x4"))]
    assert [t for t in leaky if "micro" in t] == ["T=2 micro", "T=1 micro"]


def test_a_closed_form_counts_in_one_step_only_where_the_input_is_static():
    net = Net(4)
    x = net.neuron(net.linear(net.input((4,), "static"), 4), neuron("if"))
    (found,) = texts(net.output(net.op("readout", x, mode="mean")), "graded")
    assert found == ["T=4 closed", "T=2 closed", "T=1 closed", "T=1 x2 closed", "T=1 x4 closed"]


def test_a_ratio_that_is_no_power_of_two_has_its_own_number_of_levels():
    (found,) = texts(chain(neuron("if"), timesteps=6), "graded")
    assert [t for t in found if t.startswith("T=2")] == ["T=2 closed", "T=2 x2 closed", "T=2 x3 closed"]


def test_uneven_ratios_only_for_closed_forms():
    found = texts(chain(neuron("if"), neuron("lif")), uneven=True)
    assert [t.split()[0] for t in found[0]] == ["T=8", "T=6", "T=4", "T=3", "T=2", "T=1"]
    assert [t.split()[0] for t in found[1]] == ["T=8", "T=4", "T=2", "T=1"]


def test_ranges_are_halved_down_to_one_spike_of_the_original():
    for cell, method in ((neuron("if"), "closed"), (neuron("lif"), "oneshot")):
        (found,) = texts(chain(cell), ranges=2)
        assert [t for t in found if "T=4" in t] == [f"T=4 {method}", f"T=4 {method} range 0.5"]
        assert [t for t in found if "T=2" in t] == [f"T=2 {method}{r}" for r in ("", " range 0.5", " range 0.25")]
    (found,) = texts(chain(neuron("if")), ranges=2, uneven=True)
    shares = ("", " range 0.75", " range 0.5", " range 0.375", " range 0.25")
    assert [t for t in found if "T=2" in t] == [f"T=2 closed{share}" for share in shares]
    where = space(chain(neuron("if"), neuron("lif")), ranges=1)
    picks = where.uniform(Uniform(2, 1, "closed", 0.5))
    assert {layer.range for layer in where.schedule(picks).layers.values()} == {0.5}
    assert {u.range for u in where.uniforms()} == {1.0, 0.5}


def test_layers_may_read_their_input_on_fewer_timesteps_that_divide_their_own():
    graph = chain(neuron("if"), neuron("lif"))
    closed, leaky = texts(graph, reads=(1, 3, 4))
    assert closed == [
        "T=8 closed", "T=8 closed reads 4", "T=8 closed reads 1", "T=4 closed", "T=4 closed reads 1", "T=2 closed",
        "T=2 closed reads 1", "T=1 closed",
    ]  # fmt: skip
    assert "T=4 oneshot reads 1" in leaky
    where = space(graph, reads=(4,))
    assert "T=8 closed reads 4" in [str(u) for u in where.uniforms()]
    schedule = where.schedule(where.uniform(Uniform(8, 1, "closed", reads=4)))
    assert {layer.reads for layer in schedule.layers.values()} == {4}
    apply_schedule(graph.clone(), schedule)
    with pytest.raises(ScheduleError, match="reads: are whole numbers from 1, not 0"):
        space(graph, reads=(0,))


def test_layers_without_a_binary_form_are_held_by_name_and_graded_spikes_free_them():
    graph = chain(neuron("if"), neuron("izhikevich"))
    assert list(space(graph).held) == ["sn_2"] and "micro" in space(graph).held["sn_2"]
    assert not space(graph, "graded").held
    assert texts(graph, "graded")[1] == ["T=8 closed", "T=4 micro", "T=2 micro", "T=1 micro"]


def test_hold_keeps_layers_and_unknown_names_are_errors():
    graph = chain(neuron("if"), neuron("if"))
    found = space(graph, hold=["sn"])
    assert [len(g.choices) for g in found.groups] == [1, 4] and "as asked" in found.held["sn"]
    with pytest.raises(ScheduleError) as error:
        space(graph, "ternary", hold=["no", "such"])
    assert len(error.value.problems) == 3


def test_a_cycle_chooses_together():
    net = Net(8)
    spikes = net.recurrent(net.linear(net.input((4,)), 4), neuron("if"))
    graph = net.output(net.neuron(net.linear(spikes, 4)))
    net2 = Net(8)
    x = net2.input((4,))
    feedback = net2.graph.add("delay", type=x.type)
    inner = net2.neuron(net2.op("add", x, net2.op("scale", feedback.result, factor=0.5)))
    outer = net2.neuron(net2.linear(inner, 4))
    with net2.graph.edit():
        net2.graph.set_attrs(feedback, type=outer.type)
        net2.graph.set_operand(feedback, 0, outer)
    both = net2.output(outer)
    assert [g.paths for g in space(graph).groups] == [("sn",), ("sn_2",)]
    assert [any("reads" in text for text in group) for group in texts(graph, reads=(1,))] == [False, True]
    (group,) = space(both, "graded").groups
    assert group.paths == ("sn", "sn_2")
    assert all(len({layer.timesteps for layer in choice.layers}) == 1 for choice in group.choices)


def test_uniform_finds_the_nearest_setting_and_keeps_held_layers():
    found = space(chain(neuron("if"), neuron("izhikevich"), neuron("lif")), hold=["sn"])
    schedule = found.schedule(found.uniform(Uniform(2, 1, "closed")))
    assert [e.timesteps for e in schedule.layers.values()] == [8, 8, 2]
    assert schedule.layers["sn_3"] == LayerSchedule(2, 1, "oneshot")


@settings(max_examples=10, deadline=None)
@given(networks())
def test_every_choice_can_be_applied(graph: Graph):
    for spikes in ("binary", "graded"):
        found = space(graph, spikes)
        for i, group in enumerate(found.groups):
            for pick in range(len(group.choices)):
                picks = [pick if j == i else 0 for j in range(len(found.groups))]
                apply_schedule(graph.clone(), found.schedule(picks))
