"""Events as frames: every form that recordings come in, exact binning, what is refused, and packets in a stream."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import Net
from target_harness import compiled
from test_cli import as_json, errors
from torch import Tensor
from zoo import finished

import ldsnn_compiler as ld
from ldsnn_compiler.data import load_data
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.types import SPIKE, Stream

STEPS, SENSOR = 8, (2, 3, 4)
EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")])


def recording(count: int, seed: int = 0, end: int = 1000 * STEPS) -> np.ndarray:
    """Events in order, as tonic gives them: microseconds, on a sensor of 4 by 3."""
    made = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["t"] = np.sort(made.integers(0, end, count))
    events["x"], events["y"], events["p"] = (made.integers(0, n, count) for n in (4, 3, 2))
    return events


def network(shape: tuple[int, ...] = SENSOR, time: str = "sequence", **stream: Any) -> Graph:
    """An input and what it is, as output."""
    graph = Graph("net", STEPS)
    type = Stream(STEPS, 1, shape, **stream) if time != "static" else Stream(1, STEPS, shape)
    return finished(graph, graph.add("scale", [graph.add("input", type=type, time=time, name="x").result]).result)


def by_hand(events: np.ndarray, dt: int = 1000, shape: tuple[int, ...] = SENSOR) -> Tensor:
    """``[T, *shape]``, one event after another."""
    made = torch.zeros(STEPS, *shape)
    for t, x, y, p in events.tolist():
        made[t // dt][tuple(int(i) for i in (p, y, x))[3 - len(shape) :]] += 1
    return made


FORMS = {
    "structured": lambda e: e,
    "record array": lambda e: e.view(np.recarray),
    "columns": lambda e: np.stack([e[k].astype(np.int64) for k in "txyp"], 1),
    "floats": lambda e: np.stack([e[k].astype(np.float64) for k in "txyp"], 1),
    "tensor": lambda e: torch.from_numpy(np.stack([e[k].astype(np.int64) for k in "txyp"], 1)),
    "fields": lambda e: {k: e[k] for k in ("p", "t", "x", "y")},
    "signs": lambda e: {"t": e["t"].astype(np.uint32), "x": e["x"], "y": e["y"], "p": 2 * e["p"].astype(int) - 1},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_recording(form: str) -> None:
    events = recording(200)
    found = ld.frames(FORMS[form](events), network(), "1ms")
    assert found.shape == (STEPS, 1, *SENSOR) and found.sum() == 200
    assert torch.equal(found[:, 0], by_hand(events))


def test_a_list_is_a_batch_of_any_lengths() -> None:
    each = [recording(n, seed=n) for n in (50, 0, 300)]
    found = ld.frames(each, network(), "1ms")
    assert torch.equal(found, torch.stack([by_hand(e) for e in each], 1))
    assert torch.equal(ld.frames(each, network(time="batch_first"), "1ms"), found.transpose(0, 1))


def test_presence_is_one_where_there_was_any() -> None:
    events = recording(300)
    found = ld.frames(events, network(signal=SPIKE), ld.Binning("1ms", mode="presence"))
    assert torch.equal(found[:, 0], by_hand(events).clamp(max=1)) and by_hand(events).max() > 1
    with pytest.raises(LdsnnError, match=r"x: input: takes at most 1 events a step and pixel.*mode=presence"):
        ld.frames(events, network(signal=SPIKE), "1ms")


@pytest.mark.parametrize(
    ("dt", "unit", "times", "steps"),
    [
        ("1ms", "us", [0, 999, 1000, 1999, 7999], [0, 0, 1, 1, 7]),
        (1000, "us", [999, 1000], [0, 1]),
        ("0.1s", "s", [0.0, 0.1, 0.2, 0.3, 0.7, 0.29999999], [0, 1, 2, 3, 7, 2]),
        (0.1, "s", [0.3, 0.6], [3, 6]),
        ("33.3us", "ns", [33_299, 33_300, 66_599, 66_600], [0, 1, 1, 2]),
        ("1e-3s", "ms", [0, 1, 7], [0, 1, 7]),
    ],
)
def test_binning_is_exact(dt: Any, unit: str, times: list[float], steps: list[int]) -> None:
    found = ld.frames({"t": np.array(times), "x": np.zeros(len(times))}, network((1,)), ld.Binning(dt, unit))
    assert torch.equal(found.flatten(), torch.bincount(torch.tensor(steps), minlength=STEPS).float())


def test_where_a_recording_starts() -> None:
    late = np.array([[5_000_100, 0], [5_001_099, 0], [5_001_100, 0]])
    first, at = (ld.Binning("1ms", start=s) for s in ("first", 5_000_000))
    assert ld.frames(late, network((1,)), first).flatten().tolist()[:3] == [2, 1, 0]
    assert ld.frames(late, network((1,)), at).flatten().tolist()[:3] == [1, 2, 0]


def test_inputs_of_longer_steps_take_longer_frames() -> None:
    graph = Graph("net", STEPS)
    x = graph.add("input", type=Stream(STEPS // 2, Fraction(2), (1,)), name="x").result
    found = ld.frames(np.array([[1999, 0], [2000, 0]]), finished(graph, x), "1ms")
    assert found.flatten().tolist() == [1, 1, 0, 0]


def test_shapes_of_inputs() -> None:
    events = recording(100)
    whole = by_hand(events)
    assert torch.equal(ld.frames(events, network((1, 3, 4)), "1ms")[:, 0, 0], whole.sum(1))
    assert torch.equal(ld.frames(events, network((3, 4)), "1ms")[:, 0], whole.sum(1))
    flat = ld.frames(events, network((24,)), ld.Binning("1ms", sensor=SENSOR))
    assert torch.equal(flat[:, 0], whole.flatten(1))


def test_what_lies_outside_is_refused_by_name_or_dropped_and_counted() -> None:
    far = recording(20)
    far["x"][3], far["y"][5], far["t"][19] = 4, -1, 8000
    with pytest.raises(LdsnnError) as error:
        ld.frames([recording(5), far], network(), "1ms")
    assert [str(p) for p in error.value.problems] == [
        "recording 1: events.y: 1 of 20 events lie outside: y is not in 0..2, but -1 (outside=drop leaves them out)",
        "recording 1: events.x: 1 of 20 events lie outside: x is not in 0..3, but 4 (outside=drop leaves them out)",
    ]
    with pytest.raises(LdsnnError, match=r"recording 0: events.t: 1 of 1 .* the window is 8 timesteps long, but 8 "):
        ld.frames(far[-1:], network(), "1ms")
    with pytest.warns(UserWarning, match="3 events outside the window or the sensor were dropped"):
        found = ld.frames(far, network(), ld.Binning("1ms", outside="drop"))
    assert torch.equal(found[:, 0], by_hand(np.delete(far, [3, 5, 19])))


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (np.zeros(3), r"recording 0: no events: ndarray of shape \[3\]"),
        ("0 1 2 3", "no events: str"),
        ({"t": np.arange(2), "x": np.arange(2)}, "events: lacks y, p, holds t, x|events: lacks p, y, holds t, x"),
        (np.zeros((3, 3)), "lacks p, holds t, x, y"),
        (np.full((2, 4), np.nan), r"events.t: holds NaN or infinity"),
        (np.full((2, 4), 0.5), "events.y: holds numbers that are not whole"),
        (dict.fromkeys("txyp", np.array(["a"])), "events.t: expected numbers"),
        ({**dict.fromkeys("txy", np.zeros(2)), "p": np.zeros(3)}, "fields differ in length: t: 2, p: 3"),
        (np.full((2, 4), 2**62), "events.t: holds 4611686018427387904, which is too large"),
    ],
)
def test_what_is_no_recording_is_refused(events: Any, text: str) -> None:
    with pytest.raises(LdsnnError, match=text):
        ld.frames(events, network(), "1ms")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"dt": "soon"}, "events.dt: is no duration: 'soon'"),
        ({"dt": "1 week"}, "is no duration"),
        ({"dt": 0}, "a timestep is longer than 0"),
        ({"dt": "-1ms"}, "a timestep is longer than -1ms"),
        ({"dt": "0.1ns"}, "is no whole number of nanoseconds"),
        ({"dt": 1, "unit": "hours"}, "events.unit: expected one of ns, us, ms, s, not 'hours'"),
        ({"dt": 1, "mode": "sum"}, "events.mode: expected one of count, presence"),
        ({"dt": 1, "outside": "wrap"}, "events.outside: expected one of refuse, drop"),
        ({"dt": 1, "sensor": (0, 4)}, "events.sensor"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(LdsnnError, match=text):
        ld.Binning(**settings)


def test_inputs_that_take_no_events() -> None:
    with pytest.raises(LdsnnError, match="one value for the whole run"):
        ld.frames(recording(1), network(time="static"), "1ms")
    with pytest.raises(LdsnnError, match=r"frames of \[24, 1, 1, 1\] do not fit"):
        ld.frames(recording(1), network((24, 1, 1, 1)), "1ms")
    with pytest.raises(LdsnnError, match=r"frames of \[2, 3, 3\] do not fit an input of \[24\]"):
        ld.frames(recording(1), network((24,)), ld.Binning("1ms", sensor=(2, 3, 3)))


# ---- packets


def spiking() -> Graph:
    """Frames into a convolution with leaky neurons."""
    net = Net(STEPS)
    return net.output(net.neuron(net.conv(net.input(SENSOR), 3), ld_neuron()))


def ld_neuron() -> Any:
    from ldsnn_compiler.ir.neuron import neuron

    return neuron("lif", tau=2.0)


@pytest.mark.parametrize("kind", ["interpreter", "compiled"])
def test_packets_equal_the_whole_recording(kind: str) -> None:
    graph, each = spiking(), [recording(400, seed=s) for s in (1, 2)]
    runner: Any = ld.Interpreter(graph) if kind == "interpreter" else compiled(graph)
    with torch.no_grad():
        (whole,) = runner.run(ld.frames(each, graph, "1ms"))
        runner.reset()
        stream, answers = ld.EventStream(runner, "1ms", batch=2), []
        for first in range(0, 400, 67):
            answers += stream.feed([e[first : first + 67] for e in each])
        assert 4 <= len(answers) < STEPS  # a granule waits for both samples
        answers += stream.finish()
        assert torch.equal(torch.cat([y for (y,) in answers]), whole[: len(answers)])
        answers += stream.feed([e[:0] for e in each], until="8ms")
    assert torch.equal(torch.cat([y for (y,) in answers]), whole) and stream.dropped == 0


def test_until_completes_granules_without_events() -> None:
    runner = ld.Interpreter(network((1,)))
    stream = ld.EventStream(runner, "1ms")
    assert stream.feed(np.array([[100, 0]])) == []
    assert [y.item() for (y,) in stream.feed(np.array([[2500, 0]]))] == [1.0, 0.0]
    assert [y.item() for (y,) in stream.feed(np.zeros((0, 2)), until=4000)] == [1.0, 0.0]
    assert runner.base_step == 4


def test_events_that_come_too_late() -> None:
    runner = ld.Interpreter(network((1,)))
    stream = ld.EventStream(runner, ld.Binning("1ms", start="first"))
    stream.feed(np.array([[70_000, 0], [73_000, 0]]))
    assert runner.base_step == 3
    with pytest.raises(LdsnnError, match=r"packet of sample 0: events.t: 1 of 2 .* timestep 3 is the next, but 2"):
        stream.feed(np.array([[72_999, 0], [73_001, 0]]))
    lenient = ld.EventStream(runner, ld.Binning("1ms", outside="drop"))
    lenient.feed(np.array([[2_999, 0], [3_001, 0], [3_002, 7]]))
    assert lenient.dropped == 2
    with pytest.raises(LdsnnError, match="expected 1 packets, one for each sample, found 2"):
        lenient.feed([np.zeros((0, 2))] * 2)


# ---- files and the command line


def stored(folder: Path, splits: tuple[str, ...] = ("_train", "_test"), **changed: Any) -> Path:
    """Recordings of two splits as one behind the other."""
    arrays: dict[str, Any] = {}
    for n, split in enumerate(splits):
        each = [recording(60 + i, seed=10 * n + i) for i in range(5)]
        arrays |= {f"{name}{split}": np.concatenate([e[name] for e in each]) for name in "txyp"}
        arrays[f"offsets{split}"] = np.cumsum([0, *map(len, each)])
        arrays[f"labels{split}"] = np.arange(5) % 3
    path = folder / "events.npz"
    np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return path


def test_recordings_in_a_file(tmp_path: Path) -> None:
    data = load_data(f"{stored(tmp_path)}{{dt=1ms,timesteps=8,sensor=2x3x4}}")
    assert data.calibration[0].shape == (5, STEPS, *SENSOR)
    assert torch.equal(data.report[0][2], by_hand(recording(62, seed=12)))
    assert data.report[1] is not None and data.report[1].tolist() == [0, 1, 2, 0, 1]
    for_graph = load_data(f"{stored(tmp_path)}{{dt=1ms,first=2}}", network().inputs[0])
    assert torch.equal(for_graph.report[0], data.report[0][:2]) and for_graph.report[1] is not None


def test_unsplit_recordings_as_one_structured_array(tmp_path: Path) -> None:
    each = [recording(60 + i, seed=i) for i in range(6)]
    path = tmp_path / "events.npz"
    np.savez(path, events=np.concatenate(each), offsets=np.cumsum([0, *map(len, each)]))
    data = load_data(f"{path}{{dt=1ms}}", network().inputs[0])
    assert len(data.calibration[0]) == 2 and len(data.report[0]) == 4 and data.report[1] is None
    assert torch.equal(data.calibration[0][1], by_hand(each[5]))


@pytest.mark.parametrize(
    ("options", "changed", "text"),
    [
        ("", {}, r"events.npz: holds events \(say how long a timestep is"),
        ("{dt=1ms}", {}, "the shape of the network's input is not known yet"),
        ("{dt=1ms,step=3,timesteps=x}", {}, "unknown option of events 'step'(.|\n)*cannot be read: 'timesteps=x'"),
        ("{F}", {"offsets_test": None}, "events.npz: lacks offsets_test"),
        ("{F}", {"offsets_test": np.array([0, 7])}, "events.offsets_test: expected whole numbers from 0 up to 310"),
        ("{F}", {"t_test": None}, "events.npz: holds no events_test"),
        ("{F}", {"y_test": None}, "events.npz, test recording 0: events: lacks y, holds t, x, p"),
        ("{F}", {"x_test": np.full(310, 9)}, "test recording 4: events.x: 64 of 64 events lie outside"),
        ("{F}", {"labels_test": np.arange(4)}, "4 labels for 5 samples"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, options: str, changed: dict[str, Any], text: str) -> None:
    spec = f"{stored(tmp_path, **changed)}{options.replace('{F}', '{dt=1ms,timesteps=8,sensor=2x3x4}')}"
    with pytest.raises(LdsnnError, match=text):
        load_data(spec)


def test_options_of_events_for_data_that_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.zeros((4, 2), np.float32))
    with pytest.raises(LdsnnError, match="is for recordings of events, this holds none"):
        load_data(f"{tmp_path / 'plain.npz'}{{dt=1ms}}")


def test_running_recordings_from_the_command_line(tmp_path: Path) -> None:
    net = Net(STEPS)
    fired = net.neuron(net.linear(net.op("flatten", net.input(SENSOR)), 3), ld_neuron())
    ld.write(net.output(net.op("readout", fired, mode="mean")), tmp_path / "net.ldir")
    model, data = str(tmp_path / "net.ldir"), f"{stored(tmp_path)}{{dt=1ms}}"
    compiled, interpreted = (as_json("run", model, "--data", data, *o) for o in ([], ["--interpreter"]))
    assert compiled["samples"] == 5
    assert compiled["rows"][0]["accuracy"] == interpreted["rows"][0]["accuracy"]
    (line,) = errors("run", model, "--data", str(stored(tmp_path)))
    assert "events.npz: holds events (say how long a timestep is" in line


@pytest.mark.shared_data
def test_recordings_of_a_camera(shared_data: Path) -> None:
    """N-MNIST as it is stored: events of three saccades, in microseconds, some later than the window."""
    path, steps = shared_data / "nmnist_small.npz", 300
    x = Graph("net", steps).add("input", type=Stream(steps, 1, (2, 34, 34)), name="x")
    with pytest.warns(UserWarning, match=r"nmnist_small.npz, t(rain|est): \d+ events outside .* were dropped"):
        frames, labels = load_data(f"{path}{{dt=1ms,outside=drop,first=3}}", x).report
    assert frames.shape == (3, steps, 2, 34, 34) and labels is not None and labels.tolist() == [7, 2, 1]
    with np.load(path) as file:
        low, high = file["offsets_test"][2:4]
        t, x_, y, p = (file[f"{name}_test"][low:high] for name in "txyp")
    inside = t < steps * 1000
    wanted = torch.zeros(steps, 2, 34, 34)
    np.add.at(wanted.numpy(), (t[inside] // 1000, p[inside], y[inside], x_[inside]), 1)
    assert torch.equal(frames[2], wanted)
    with pytest.raises(LdsnnError, match=r"npz, train recording \d: events.t: .* the window is 300 timesteps"):
        load_data(f"{path}{{dt=1ms,first=3}}", x)
