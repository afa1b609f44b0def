"""Schedule files: read and written without loss, every mistake in them reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import Net
from hypothesis import given
from hypothesis import strategies as st

from ldsnn_compiler.errors import LdsnnError, ScheduleError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.schedule import METHODS, LayerSchedule, Schedule, neuron_layers

layers = st.builds(
    lambda reads, held, *others: LayerSchedule(reads * held, *others, input_timesteps=None if held == 1 else reads),
    *(st.integers(1, 8), st.integers(1, 8), st.integers(1, 16)),
    st.sampled_from(METHODS),
    st.sampled_from((1.0, 0.5, 0.3)),
)
schedules = st.builds(Schedule, st.integers(1, 64), st.dictionaries(st.text(), layers))


def _net() -> Graph:
    net = Net(8)
    return net.output(net.neuron(net.neuron(net.input((3,))), neuron("lif")))


@given(schedules)
def test_text_reads_back(schedule: Schedule) -> None:
    assert Schedule.parse(schedule.text()) == schedule


def test_files_read_back_and_defaults_may_be_left_out(tmp_path: Path) -> None:
    schedule = Schedule(64, {"layer1.0.relu1": LayerSchedule(8, 4), "fc#2": LayerSchedule(2, 1, "micro")})
    schedule.write(tmp_path / "s.json")
    assert Schedule.read(tmp_path / "s.json") == schedule
    short = Schedule.parse('{"version": 1, "base_timesteps": 8, "layers": {"a": {"timesteps": 2}}}')
    assert short.layers["a"] == LayerSchedule(2, 1, "closed")


def test_all_that_is_wrong_with_a_file_is_reported() -> None:
    text = """{"version": 2, "base_timesteps": 0, "extra": 1, "layers": {
        "a": {"timesteps": 0, "levels": true}, "b": {"timestep": 1, "method": "best"}, "c": 3,
        "d": {"timesteps": 1, "range": 2}, "e": {"timesteps": 4, "input_timesteps": 3},
        "f": {"timesteps": 4, "input_timesteps": 0}}}"""
    with pytest.raises(ScheduleError) as caught:
        Schedule.parse(text, "s.json")
    assert [str(p) for p in caught.value.problems] == [
        "s.json: .version: version 2 cannot be read, only 1",
        "s.json: .base_timesteps: is a whole number from 1",
        "s.json: unknown key 'extra'",
        "s.json: a: timesteps is a whole number from 1, not 0",
        "s.json: a: levels is a whole number from 1, not True",
        "s.json: b: unknown key 'timestep'",
        "s.json: b: timesteps is a whole number from 1, not None",
        "s.json: b: method is one of closed, micro, oneshot, not 'best'",
        "s.json: c: a layer is an object with timesteps, levels and method",
        "s.json: d: range is a number above 0 and up to 1, not 2",
        "s.json: e: input_timesteps divides timesteps, which 3 does not divide 4",
        "s.json: f: input_timesteps is a whole number from 1, not 0",
    ]


@pytest.mark.parametrize("text", ["", "[1]", '{"version": 1}', "{"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError):
        Schedule.parse(text)


def test_a_missing_or_binary_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for name in ("none.json", "b.json"):
        with pytest.raises(LdsnnError) as caught:
            Schedule.read(tmp_path / name)
        assert str(caught.value).count("\n") == 0 and name in str(caught.value)


def test_misfits_name_the_closest_paths() -> None:
    schedule = Schedule(16, {"sn": LayerSchedule(9), "sn_3": LayerSchedule(1)})
    with pytest.raises(ScheduleError) as caught:
        schedule.check(_net())
    assert [str(p) for p in caught.value.problems] == [
        "schedule: is for 16 base timesteps, the network has 8",
        "sn_3: the network has no neuron layer of that path (closest: sn_2, sn)",
        "sn: .timesteps: 9 timesteps are more than its 8",
        "sn_2: the schedule misses this layer (closest: sn_3)",
    ]


def test_uniform_takes_closed_where_there_is_one() -> None:
    schedule = Schedule.uniform(_net(), 4)
    assert schedule.layers == {"sn": LayerSchedule(4), "sn_2": LayerSchedule(4, 1, "micro")}
    schedule.check(_net())
    assert {e.method for e in Schedule.uniform(_net(), 4, method="oneshot").layers.values()} == {"oneshot"}


def test_uniform_is_in_proportion_behind_a_slice() -> None:
    net = Net(8)
    graph = net.output(net.neuron(net.op("slice_time", net.neuron(net.input((3,))), steps=4)))
    assert [e.timesteps for e in Schedule.uniform(graph, 4).layers.values()] == [4, 2]
    with pytest.raises(ScheduleError, match="sn_2: 1 timesteps in all would be 1/2 here"):
        Schedule.uniform(graph, 1)


def test_a_module_called_again_has_its_number() -> None:
    graph = _net()
    for node in graph.of("neuron"):
        node.path = "block.relu"
    assert list(neuron_layers(graph)) == ["block.relu", "block.relu#2"]
