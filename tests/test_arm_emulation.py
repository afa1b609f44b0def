"""Cross-compiled networks on an emulated ARM core: the interpreter's bits, and no code that the core does not have."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from emulation import machine
from emulation.compare import CORES, RUNNER, Case, case, differences, run
from emulation.many import draw, failures, whole_numbers
from graphs import SOFT_IF, Net, inputs_of, networks

from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.runtime import folder
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.targets import board

DENSE = (
    "canonicalize,fold-batchnorm,fold-scale,assign-timesteps,commute-resample,drop-dead-timesteps,canonicalize,dead-code,"
    "quantize,select-kernels{kernel=dense},fuse-timesteps"
)
pytestmark = pytest.mark.arm_emulation


def residual() -> Graph:
    """More channels than a word has, strides, shortcuts, graded spikes, an average pool and a mean at the end."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((3, 8, 8), "static"), 72))
    x = net.neuron(net.op("add", net.conv(x, 72), x), neuron("if", max_count=4, threshold=0.5, spike_value=0.5))
    x = net.pool(net.neuron(net.conv(x, 40, stride=2), neuron("lif", tau=2.0)))
    return net.output(net.op("readout", net.linear(net.op("flatten", x), 10), mode="mean"))


def recurrent() -> Graph:
    """A cycle through a delay, and a running readout beside spikes of every step."""
    net = Net(8)
    x = net.recurrent(net.linear(net.input((5,)), 7), neuron("lif", tau=2.0))
    return net.output(net.op("readout", net.linear(x, 3), mode="max"), x)


def cases(into: Path, target: str, graphs: dict[str, Graph]) -> list[Case]:
    for name in graphs:
        (into / name).mkdir()
    return [case(into / name, graph, target) for name, graph in graphs.items()]


@pytest.mark.parametrize("target", CORES)
def test_networks_are_the_interpreters(target: str, tmp_path: Path) -> None:
    graphs = {"residual": residual(), "recurrent": recurrent()}
    if target == "raspberry-pi-4":
        graphs |= {f"random {i}": net for i, net in enumerate(draw(networks(), 4, 0))}
        graphs |= {f"soft {i}": net for i, net in enumerate(draw(networks(neurons=SOFT_IF), 2, 0))}
    made = cases(tmp_path, target, graphs)
    run(made, CORES[target])
    assert {c.folder.name: differences(c) for c in made} == {name: [] for name in graphs}


def test_scheduled_networks_are_the_interpreters(tmp_path: Path) -> None:
    graph = residual()
    made = case(tmp_path, graph, "raspberry-pi-4", schedule=Schedule.uniform(graph, 2, levels=2))
    run([made], "cortex-a72")
    assert differences(made) == []


def test_whole_number_networks_are_the_interpreters() -> None:
    assert failures(whole_numbers(25, 1), "raspberry-pi-5") == []


# ---- what a core does not have


@pytest.fixture(scope="module")
def dot_products(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network in integer mode whose dense layers use an instruction of the Cortex-A76."""
    net = Net(2)
    x = net.neuron(net.conv(net.input((8, 6, 6)), 64))
    graph = net.output(net.neuron(net.conv(x, 64)))
    return case(
        tmp_path_factory.mktemp("dot"), graph, "raspberry-pi-5", numerics="int",
        calibration=calibrate(graph, *inputs_of(graph)), pipeline=DENSE,
    )  # fmt: skip


def test_dot_products_are_right_where_there_are_any(dot_products: Case) -> None:
    run([dot_products], "cortex-a76")
    assert differences(dot_products) == []


def test_a_bundle_for_a_core_with_more_is_refused_by_name(dot_products: Case, tmp_path: Path) -> None:
    there = replace(dot_products, folder=Path(shutil.copytree(dot_products.folder, tmp_path / "there")))
    run([there], "cortex-a72")
    assert "was compiled for raspberry-pi-5 (cortex-a76), this machine lacks " in there.refused
    assert "dotprod" in there.refused.partition("lacks")[2]


def test_code_that_a_core_lacks_stops_there(dot_products: Case, tmp_path: Path) -> None:
    """What the loader keeps away, with a manifest that hides it: emulated cores are as different as the real ones."""
    there = Path(shutil.copytree(dot_products.folder, tmp_path / "there"))
    path = there / "net.ldsnn" / folder.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["target"]["features"] = []
    path.write_text(json.dumps(manifest | {"sha256": folder.seal(manifest)}))
    made = machine.python([RUNNER, there], "cortex-a72")
    assert made.returncode in (-signal.SIGILL, 128 + signal.SIGILL), made.stderr


def test_a_core_tells_what_it_has() -> None:
    program = "from ldsnn_compiler.targets.boards import running_features as f; print(*sorted(f()))"
    told = {core: machine.python(["-c", program], core).stdout.split() for core in ("cortex-a72", "cortex-a76")}
    assert told["cortex-a72"] == ["aes", "crc", "sha2"]
    assert set(board("raspberry-pi-5").features) <= set(told["cortex-a76"])
