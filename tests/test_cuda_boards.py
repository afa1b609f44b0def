"""CUDA boards: what they say, the libraries they get without a GPU, and what loading those asks for."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from graphs import Net, inputs_of
from typer.testing import CliRunner

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.driver import DEFAULT_PIPELINE, compile
from ldsnn_compiler.errors import BundleError, LdsnnError
from ldsnn_compiler.integers import calibrate
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.store import write_graph
from ldsnn_compiler.runtime import load
from ldsnn_compiler.targets.boards import Board, architectures, board, boards
from ldsnn_compiler.targets.build import symbols
from ldsnn_compiler.targets.cuda import compiler, gpu, resources
from ldsnn_compiler.targets.cuda.gpu import Gpu

#: bytes of registers that ptxas may spill in a thread: it does so by choice, far below the registers there are
SPILLS = 16
BOARDS = ("rtx-30", "rtx-40", "h100")
SOURCE = """
extern "C" __global__ void __launch_bounds__(64) scaled(float* __restrict__ y, float factor) {
  __shared__ float kept[64];
  kept[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = kept[63 - threadIdx.x] * factor + 1.0f;
}
"""


def dense_network() -> Graph:
    """Convolutions for tensor cores, of binary and of graded spikes, and one too narrow for them."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 70))
    x = net.neuron(net.conv(net.pool(x), 40))
    x = net.neuron(net.conv(net.pool(x), 5))
    return net.output(net.op("readout", net.linear(net.op("flatten", x), 3), mode="mean"))


def network() -> Graph:
    """A convolution, a pool, a cycle, a readout."""
    net = Net(4)
    x = net.pool(net.neuron(net.conv(net.input((2, 6, 6)), 70)))
    x = net.recurrent(net.linear(net.op("flatten", x), 5))
    return net.output(net.op("readout", net.linear(x, 3), mode="mean"))


def test_boards_describe_their_gpu() -> None:
    assert {name: b.gpu.arch for name, b in boards().items() if b.gpu and name in BOARDS} == {
        "rtx-30": "sm_86", "rtx-40": "sm_89", "h100": "sm_90"
    }  # fmt: skip
    assert {"sm_86", "sm_89", "sm_90"} <= set(architectures())
    for name in BOARDS:
        assert Board.of_json(board(name).to_json()) == board(name)


def test_a_gpu_says_what_is_wrong_with_it() -> None:
    with pytest.raises(LdsnnError, match="kind") as caught:
        Gpu("ampere", kind="opencl")
    assert len(caught.value.problems) == 2


def test_without_a_gpu_the_native_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "running", lambda: None)
    # the package's attribute of that name is a function
    monkeypatch.setattr(import_module("ldsnn_compiler.targets.boards"), "native_gpu", lambda: None)
    with pytest.raises(LdsnnError, match="no CUDA device") as caught:
        board("cuda")
    assert "h100" in str(caught.value)


def test_an_older_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "running", lambda: ("old", Gpu("sm_75")))
    assert board("h100").missing() == ("a CUDA device of sm_86 or later",)
    monkeypatch.setattr(gpu, "running", lambda: ("new", Gpu("sm_120")))
    assert board("rtx-30").missing() == ()


@pytest.mark.cuda_compiler
def test_machine_code_tells_what_it_needs() -> None:
    for arch in ("sm_86", "sm_89", "sm_90"):
        (found,) = resources.resources(compiler.cubin(SOURCE, arch))
        assert found.kernel == "scaled" and 0 < found.registers <= 255 and found.local_bytes == 0
        assert found.shared_bytes >= 256
        assert b"fma" not in compiler.ptx(SOURCE, arch), "a product was contracted with a sum"
    resources.check((found,), {"scaled": 64}, Gpu("sm_90"))
    with pytest.raises(LdsnnError, match="registers of a block") as caught:
        resources.check((found,), {"scaled": 1024}, Gpu("sm_90", registers=1024, shared_kib=0))
    assert len(caught.value.problems) == 2


@pytest.mark.cuda_compiler
def test_what_the_compiler_refuses_is_told() -> None:
    with pytest.raises(LdsnnError, match="undefined_name"):
        compiler.cubin('extern "C" __global__ void f(float* y) { y[0] = undefined_name; }', "sm_86")
    with pytest.raises(LdsnnError, match="ELF"):
        resources.resources(b"not a cubin")


@pytest.mark.cuda_compiler
@pytest.mark.parametrize("name", BOARDS)
def test_every_kernel_compiles_for_every_board(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []
    joined = compiler.fat_binary
    monkeypatch.setattr(compiler, "fat_binary", lambda s, archs: sources.append(s) or joined(s, archs))  # type: ignore[func-returns-value]
    compile(network(), target=name, batch=None if name == "h100" else 2)
    machine = board(name).gpu
    assert machine is not None and len(sources) == 1
    found = resources.resources(compiler.cubin(sources[0], machine.arch))
    assert len(found) > 8
    resources.check(found, resources.threads(sources[0]), machine)
    spilled = [each for each in found if each.local_bytes > SPILLS]
    assert not spilled, "registers are spilled, or arrays do not fit them"


@pytest.mark.cuda_compiler
@pytest.mark.parametrize("numerics", ["fp32", "int"])
def test_kernels_for_tensor_cores_compile_for_every_board(numerics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []
    joined = compiler.fat_binary
    monkeypatch.setattr(compiler, "fat_binary", lambda s, archs: sources.append(s) or joined(s, archs))  # type: ignore[func-returns-value]
    graph = dense_network()
    options = {"numerics": "int", "calibration": calibrate(graph, *inputs_of(graph))} if numerics == "int" else {}
    pipeline = DEFAULT_PIPELINE.replace("select-kernels", "select-kernels{kernel=dense}")
    compile(graph, target="h100", batch=16, pipeline=pipeline, **options)  # type: ignore[arg-type]
    (source,) = sources
    name = "mma_half" if numerics == "fp32" else "mma_byte"
    assert source.count(f"ldsnn_{name}(") > 1 and ("ldsnn_dp4a(" in source) == (numerics == "int")
    for each in BOARDS:
        machine = board(each).gpu
        assert machine is not None
        found = resources.resources(compiler.cubin(source, machine.arch))
        resources.check(found, resources.threads(source), machine)
        assert not [kernel for kernel in found if kernel.local_bytes > SPILLS]
        assert b"mma.sync.aligned" in compiler.ptx(source, machine.arch)


@pytest.mark.cuda_compiler
@pytest.mark.parametrize("batch", [2, None])
def test_launches_between_input_and_output_are_one_cuda_graph(batch: int | None) -> None:
    """Where shapes are known. What reads the caller's data and what writes the result are launched by themselves."""
    made = compile(network(), target="h100", batch=batch)
    (text,) = re.findall(r"^@run:\n(.*?)(?=^@|\Z)", made.library.built.as_text(), flags=re.M | re.S)
    called = re.findall(r"call +(\S+)", text)
    alone = [name for name in called if name in symbols(list(made.plans.values())).values()]
    recorded = called.count("vm.builtin.cuda_graph.run_or_capture")
    assert (len(alone), recorded) == (2, 1) if batch else len(alone) > 5 and recorded == 0


@pytest.mark.cuda_compiler
def test_a_bundle_is_made_by_one_command_and_refused_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(network(), tmp_path / "net.ldir")
    bundle = tmp_path / "net.ldsnn"
    done = CliRunner().invoke(
        app, ["compile", str(tmp_path / "net.ldir"), "--target", "rtx-40", "-o", str(bundle)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    library = (bundle / "lib-rtx-40.so").read_bytes()
    assert b"__global__" not in library, "the library holds source"
    assert all(f"-arch sm_{n}".encode() in library for n in (86, 89, 90))
    assert library.count(b"\x50\xed\x55\xba") == 1, "one fat binary"
    monkeypatch.setattr(gpu, "running", lambda: None)
    with pytest.raises(BundleError, match="lacks a CUDA device") as caught:
        load(bundle)
    assert len(str(caught.value).splitlines()) == 1
