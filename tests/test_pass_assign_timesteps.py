"""What a schedule does to neurons, joins, cycles, slices, encoders; and what is refused, by name."""

from __future__ import annotations

import pytest
import torch
from graphs import SPIKING, Net, inputs_of, run

from ldsnn_compiler.errors import ScheduleError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import Neuron, neuron
from ldsnn_compiler.ir.verify import verify
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps, apply_schedule
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule


def _assigned(graph: Graph, **layers: LayerSchedule) -> Graph:
    return run_pipeline(graph.clone(), [AssignTimesteps.of(Schedule(graph.base_timesteps, layers))])


def _one_layer(program: Neuron, membrane: bool = False) -> Graph:
    """A neuron layer on a static input, its spikes (and membrane) and their mean."""
    net = Net(8, seed=3)
    spikes = net.neuron(net.linear(net.input((6,), "static"), 5), program, membrane)
    return net.output(net.resample(spikes, 8), *([spikes.node.results[1]] if membrane else []))


@pytest.mark.parametrize("program", SPIKING, ids=str)
@pytest.mark.parametrize("timesteps", [1, 2, 4])
def test_micro_is_exact_for_held_input(program: Neuron, timesteps: int) -> None:
    net = _one_layer(program)
    retimed = _assigned(net, sn=LayerSchedule(timesteps, 1, "micro"))
    assert retimed.node("sn").type.timesteps == timesteps
    assert torch.equal(run(net)[0], run(retimed, inputs_of(net))[0])


def test_closed_with_as_many_levels_as_steps_is_exact_for_held_input_without_saturation() -> None:
    """Soft-reset IF under constant input below the threshold: counts over 8 steps equal one graded step."""
    net = Net(8, seed=1)
    held = net.op("scale", net.input((6,), "static"), factor=0.5)  # at most threshold / 2 a step
    graph = net.output(net.resample(net.neuron(held, neuron("if", v_init=0.5)), 8))
    graded = _assigned(graph, sn=LayerSchedule(1, 8))
    assert torch.equal(run(graph)[0], run(graded, inputs_of(graph))[0])


def test_the_least_membrane_is_divided_like_the_threshold() -> None:
    """8 steps of -1/2, clamped at -1, then 8 of +1/2: the clamp must hold in the graded neuron's units as well."""
    net = Net(16)
    graph = net.output(net.resample(net.neuron(net.input((1,)), neuron("if", floor=True, v_min=-1.0)), 8))
    data = (torch.cat([torch.full((8, 1, 1), -0.5), torch.full((8, 1, 1), 0.5)]),)
    graded = _assigned(graph, sn=LayerSchedule(2, 8))
    assert run(graph, data)[0].flatten().tolist() == run(graded, data)[0].flatten().tolist() == [0.0, 0.375]


def test_thresholds_per_channel_are_divided_into_levels() -> None:
    net = Net(8)
    threshold = net.graph.tensor("sn.threshold", torch.tensor([1.0, 2.0, 1.0, 4.0]))
    graph = net.output(net.neuron(net.linear(net.input((4,)), 4), neuron("if", threshold=threshold)))
    params = _assigned(graph, sn=LayerSchedule(2, 4))
    new = params.node("sn")["neuron"]
    assert new.options["max_count"] == 4
    assert params.tensors[new.params["threshold"].name].tolist() == [0.25, 0.5, 0.25, 1.0]
    assert new.params["spike_value"] == 0.25


def test_a_membrane_keeps_its_ratio_to_the_threshold() -> None:
    """Silent neurons (no spikes, no residue): the scaled membrane is the sum of the held input, as before."""
    graph = _one_layer(neuron("if", threshold=1024.0), membrane=True)
    retimed = _assigned(graph, sn=LayerSchedule(1, 8))
    assert torch.equal(run(graph)[1][-1], run(retimed, inputs_of(graph))[1][-1])


def test_operands_of_a_join_meet_at_the_largest_t_below_their_consumer() -> None:
    net = Net(32)
    first = net.neuron(net.input((4,)))
    second = net.neuron(net.linear(first, 4))
    net.output(net.neuron(net.op("add", net.linear(first, 4), net.linear(second, 4))))
    for t1, t2, t3, met in ((32, 8, 16, 16), (8, 4, 32, 8), (32, 32, 2, 2), (16, 32, 8, 8)):
        graph = _assigned(net.graph, sn=LayerSchedule(t1), sn_2=LayerSchedule(t2), sn_3=LayerSchedule(t3))
        assert graph.node("add").type.timesteps == met, (t1, t2, t3)


def test_timesteps_need_not_divide_each_other() -> None:
    net = Net(12)
    net.output(net.linear(net.neuron(net.linear(net.neuron(net.input((4,))), 4)), 2))
    graph = _assigned(net.graph, sn=LayerSchedule(5), sn_2=LayerSchedule(7))
    run_pipeline(graph, parse_pipeline("commute-resample"))
    assert [graph.node(n).type.timesteps for n in ("sn", "linear", "sn_2", "linear_2")] == [5, 5, 7, 7]
    assert graph.outputs[0].type.timesteps == 12


def test_encoders_slices_and_free_delays_keep_their_meaning() -> None:
    net = Net(8)
    code = net.op("encode", net.neuron(net.input((4,))), code="poisson", seed=1)
    late = net.graph.add("delay", [net.neuron(code)], steps=4, type=code.type).result
    net.output(net.op("slice_time", late, steps=6), net.op("slice_time", net.neuron(late), steps=4))
    graph = _assigned(net.graph, sn=LayerSchedule(2), sn_2=LayerSchedule(4), sn_3=LayerSchedule(2))
    kept = {
        n.name: (n.type.timesteps, n.type.dt) for n in graph.nodes if n.op.name in ("encode", "delay", "slice_time")
    }
    assert kept == {"encode": (8, 1), "delay": (4, 2), "slice_time": (3, 2), "slice_time_2": (1, 4)}
    assert graph.node("delay")["steps"] == 2
    assert [n.type.timesteps for n in graph.outputs] == [6, 4]


def test_a_delay_within_a_cycle_is_at_least_one_step() -> None:
    net = Net(8)
    net.output(net.recurrent(net.linear(net.input((4,)), 3)))
    graph = _assigned(net.graph, sn=LayerSchedule(2, 2))
    verify(graph)
    assert {graph.node(n).type.timesteps for n in ("delay", "scale", "add", "sn")} == {2}
    assert graph.node("delay")["steps"] == 1


def test_layers_of_one_cycle_share_their_timesteps() -> None:
    net = Net(8)
    feedback = net.graph.add("delay", type=net.input((3,)).type)
    spikes = net.neuron(net.linear(net.neuron(net.op("add", net.graph.node("x").result, feedback.result)), 3))
    with net.graph.edit():
        net.graph.set_attrs(feedback, type=spikes.type)
        net.graph.set_operand(feedback, 0, spikes)
    net.output(spikes)
    with pytest.raises(ScheduleError, match="sn, sn_2: layers of one cycle need the same number of timesteps"):
        _assigned(net.graph, sn=LayerSchedule(2), sn_2=LayerSchedule(4))


def test_reading_on_fewer_timesteps_averages_and_holds_the_input() -> None:
    """By definition: the input averaged over the steps that are read, held, and the neuron run on that."""
    net = Net(8)
    graph = net.output(net.neuron(net.linear(net.input((5,)), 6), neuron("if")))
    read = _assigned(graph, sn=LayerSchedule(8, input_timesteps=2))
    net = Net(8)
    current = net.linear(net.input((5,)), 6)
    held = net.op("resample", net.resample(current, 4), dt=1, mode="repeat")
    assert torch.equal(run(read)[0], run(net.output(net.neuron(held, neuron("if"))), inputs_of(graph))[0])
    assert torch.equal(run(read)[0], run(_assigned(graph, sn=LayerSchedule(8, input_timesteps=2)))[0])


def test_a_layer_that_reads_once_spreads_its_spikes_evenly_and_emits_none_that_later_input_prevents() -> None:
    """Four steps of 1, then four of -3/4: early input calls for four spikes, all of it for one; of four of 0, then
    four of 1, all spikes come late, or every other step."""
    net = Net(8)
    graph = net.output(net.neuron(net.input((2,)), neuron("if", v_init=0.5)))
    data = (torch.tensor([[1.0, 0.0]] * 4 + [[-0.75, 1.0]] * 4)[:, None],)
    plain, read = (run(_assigned(graph, sn=LayerSchedule(8, input_timesteps=n)), data)[0][:, 0] for n in (None, 1))
    assert plain.sum(0).tolist() == [4.0, 4.0] and read.sum(0).tolist() == [1.0, 4.0]
    assert read[:, 1].tolist() == [1.0, 0.0] * 4


def test_a_layer_of_a_cycle_reads_its_own_timesteps() -> None:
    net = Net(8)
    spikes = net.recurrent(net.linear(net.input((4,)), 4), neuron("if"))
    with pytest.raises(ScheduleError, match="a layer of a cycle reads its input on its own timesteps"):
        _assigned(net.output(spikes), sn=LayerSchedule(4, input_timesteps=2))


def test_all_layers_that_cannot_be_retimed_are_named_and_the_graph_stays() -> None:
    net = Net(8)
    x = net.neuron(net.input((4,)), neuron("if", reset="hard"))
    net.output(net.neuron(net.neuron(x, neuron("leaky")), neuron("if", max_count=4)))
    before = net.graph.clone()
    with pytest.raises(ScheduleError) as caught:
        _assigned(net.graph, sn=LayerSchedule(2), sn_2=LayerSchedule(2), sn_3=LayerSchedule(2, 2))
    text = str(caught.value)
    assert all(f"{path}: " in text for path in ("sn", "sn_2", "sn_3"))
    assert "only micro, oneshot" in text and "soft reset" in text
    assert net.graph.nodes and [n.name for n in net.graph] == [n.name for n in before]


def test_without_a_schedule_only_the_stage_moves() -> None:
    graph = _one_layer(neuron("if"))
    after = run_pipeline(graph.clone(), parse_pipeline("assign-timesteps"))
    assert (graph.stage, after.stage) == ("traced", "scheduled")
    with pytest.raises(ScheduleError, match="this one is scheduled"):
        run_pipeline(after, parse_pipeline("assign-timesteps"))


def test_a_schedule_file_is_applied(tmp_path: object) -> None:
    path = f"{tmp_path}/s.json"
    graph = _one_layer(neuron("if"))
    Schedule.uniform(graph, 2).write(path)
    after = run_pipeline(graph.clone(), parse_pipeline(f'assign-timesteps{{schedule="{path}"}}'))
    assert after.node("sn").type.timesteps == 2
    apply_schedule(other := graph.clone(), Schedule.read(path))
    assert other.node("sn").type == after.node("sn").type
