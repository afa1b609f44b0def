"""Cross-compiled networks on an emulated ARM core: the interpreter's bits, and no code that the core does not have."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from emulation import machine
from emulation.compare import CORES, Case, case, differences, run
from emulation.many import draw, failures, whole_numbers
from graphs import SOFT_IF, Net, networks

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.targets import board, link

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


def cases(folder: Path, target: str, graphs: dict[str, Graph], **options: object) -> list[Case]:
    made = []
    for name, graph in graphs.items():
        (folder / name).mkdir()
        made.append(case(folder / name, graph, target, **options))  # type: ignore[arg-type]
    return made


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
    made = cases(tmp_path, "raspberry-pi-4", {"net": graph}, schedule=Schedule.uniform(graph, 2, levels=2))
    run(made, "cortex-a72")
    assert differences(made[0]) == []


def test_whole_number_networks_are_the_interpreters() -> None:
    assert failures(whole_numbers(25, 1), "raspberry-pi-5") == []


# ---- what a core does not have

#: four sums of four products of bytes, an instruction of the Cortex-A76
DOT_PRODUCT = """
@T.prim_func(s_tir=True)
def dot(a: T.Buffer((16,), "int8"), b: T.Buffer((16,), "int8"), y: T.Buffer((4,), "int32")):
    T.func_attr({"global_symbol": "dot"})
    y[0:4] = T.call_llvm_pure_intrin(
        "int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", T.broadcast(0, 4), a[0:16], b[0:16])
"""
CALL = """
import sys, numpy, tvm
a, b, y = (tvm.runtime.tensor(numpy.full(n, 2, t)) for n, t in ((16, "int8"), (16, "int8"), (4, "int32")))
tvm.runtime.load_module(sys.argv[1])["dot"](a, b, y)
print(y.numpy().tolist())
"""


@pytest.fixture(scope="module")
def dot_product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tvm

    path, pi = tmp_path_factory.mktemp("dot") / "dot.so", board("raspberry-pi-5")
    link.export(tvm.compile(tvm.script.from_source(DOT_PRODUCT), target=pi.target(1)), str(path), pi)
    return path


def test_a_core_that_lacks_an_instruction_stops(dot_product: Path) -> None:
    """This is what the loader keeps away: the emulated cores are as different as the real ones."""
    works = machine.python(["-c", CALL, dot_product], "cortex-a76")
    assert (works.returncode, works.stdout.strip()) == (0, "[16, 16, 16, 16]"), works.stderr
    assert machine.python(["-c", CALL, dot_product], "cortex-a72").returncode in (-signal.SIGILL, 128 + signal.SIGILL)


def test_a_bundle_for_a_core_with_more_is_refused_by_name(tmp_path: Path) -> None:
    made = cases(tmp_path, "raspberry-pi-5", {"net": recurrent()})
    run(made, "cortex-a72")
    assert "was compiled for raspberry-pi-5 (cortex-a76), this machine lacks " in made[0].refused
    assert "dotprod" in made[0].refused.partition("lacks")[2]


def test_a_core_tells_what_it_has() -> None:
    program = "from ldsnn_compiler.targets.boards import running_features as f; print(*sorted(f()))"
    told = {core: machine.python(["-c", program], core).stdout.split() for core in ("cortex-a72", "cortex-a76")}
    assert told["cortex-a72"] == ["aes", "crc", "sha2"]
    assert set(board("raspberry-pi-5").features) <= set(told["cortex-a76"])
