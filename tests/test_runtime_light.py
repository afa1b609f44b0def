"""Bundles run without PyTorch: the same bits, the same state, the same refusals as with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Net, inputs_of
from target_harness import compiled

from ldsnn_compiler.errors import BundleError, LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.runtime import Compiled, light
from ldsnn_compiler.runtime.interface import Interface


def _graph() -> Graph:
    """All kinds of state: of regions, of a cycle, of a readout."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 4), neuron("lif", tau=2.0))
    x = net.recurrent(net.linear(net.op("flatten", x), 5))
    return net.output(net.op("readout", net.linear(x, 3), mode="max"), x)


@pytest.fixture(scope="module")
def network() -> Compiled:
    return compiled(_graph(), batch=None)


@pytest.fixture(scope="module")
def saved(network: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("light") / "net.ldsnn"
    network.save(path)
    return path


def test_it_runs_and_steps_as_the_whole_package_does(network: Compiled, saved: Path) -> None:
    small = light.load(saved)
    (data,) = inputs_of(network.graph, 3)
    for a, b in zip(small.run(data.numpy()), network.run(data), strict=True):
        assert np.array_equal(a, b.numpy())
    network.reset()
    for k in range(4):
        for a, b in zip(small.step(data[k : k + 1].numpy()), network.step(data[k : k + 1]), strict=True):
            assert np.array_equal(a, b.numpy())
        found = {(n, v): x for n, variables in small.state.items() for v, x in variables.items()}
        wanted = {(n, v): x for n, variables in network.state.items() for v, x in variables.items()}
        assert found.keys() == wanted.keys() and len(found) >= 3
        assert all(np.array_equal(found[key], wanted[key].numpy()) for key in found)


def test_state_is_taken_up_again(saved: Path) -> None:
    one, other = light.load(saved), light.load(saved)
    (data,) = (x.numpy() for x in inputs_of(_graph(), 2))
    one.step(data[:2])
    other.state, other.base_step = one.state, one.base_step
    for a, b in zip(one.step(data[2:]), other.step(data[2:]), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(LdsnnError, match="no such state"):
        other.state = {"nobody": {"v": data}}


@pytest.mark.parametrize("time", ["static", "sequence", "batch_first", "folded"])
def test_it_takes_the_users_layout(time: str, tmp_path: Path) -> None:
    net = Net(2)
    x = net.input((3,), "static" if time == "static" else "sequence")
    graph = net.output(net.neuron(net.linear(x, 4)))
    if time != "static":
        graph.set_attrs(graph.inputs[0], time=time)
        graph.set_attrs(graph.outputs[0], time=time)
    network = compiled(graph, batch=None)
    network.save(tmp_path / "net.ldsnn")
    shape = {"static": (5, 3), "sequence": (2, 5, 3), "batch_first": (5, 2, 3), "folded": (10, 3)}[time]
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    wanted = network(data)
    assert isinstance(wanted, torch.Tensor)
    assert np.array_equal(light.load(tmp_path / "net.ldsnn")(data.numpy()), wanted.numpy())


def test_what_it_takes_and_gives_survives_json(network: Compiled) -> None:
    interface = network.interface
    assert Interface.of_json(json.loads(json.dumps(interface.to_json()))) == interface
    assert [p.is_running for p in interface.outputs] == [True, False]


def test_it_needs_no_pytorch(saved: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from ldsnn_compiler.runtime import light\n"
        f"print(light.load({str(saved)!r}).run(np.ones((4, 1, 2, 6, 6), np.float32))[1].shape)\n"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == "(4, 1, 5)"


def test_wrong_data_is_named(saved: Path) -> None:
    small = light.load(saved)
    with pytest.raises(LdsnnError, match="x: expected a numpy array, found Tensor"):
        small.run(torch.ones(4, 1, 2, 6, 6))
    with pytest.raises(LdsnnError, match="x: expected float32 data, found float64"):
        small.run(np.ones((4, 1, 2, 6, 6)))
    with pytest.raises(LdsnnError, match=r"x: expected data of shape \[4, N, 2, 6, 6\], found \[4, 1, 2, 6\]"):
        small.run(np.ones((4, 1, 2, 6), np.float32))


@pytest.mark.parametrize("name", ["interface.json", "arguments.safetensors"])
def test_an_edited_file_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    for each in saved.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"its {name} was edited"):
        light.load(tmp_path)
