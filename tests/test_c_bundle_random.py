"""Random networks as C programs, here and on an emulated ARM core: runs, steps and state are the interpreter's."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from c_harness import STRICT, WHOLE, answers, assert_right, build, bundle, check, parts, run
from emulation.machine import EMULATOR
from graphs import SOFT_IF, Net, networks, some_schedule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_c_bundle import image_net, recurrent_net

from ldsnn_compiler.driver import DEFAULT_PIPELINE
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.targets import board
from ldsnn_compiler.targets.link import cross_compiler

few = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@settings(max_examples=5, **few)
@given(net=networks())
def test_random_networks(net: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(net, Path(folder) / "net")


@settings(max_examples=3, **few)
@given(net=networks(neurons=SOFT_IF, slices=False, recurrent=False), seed=st.integers(0, 2**16))
def test_scheduled_random_networks(net: Graph, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(net, Path(folder) / "net", schedule=some_schedule(net, random.Random(seed)))


CORES = {"raspberry-pi-4": "cortex-a72", "raspberry-pi-5": "cortex-a76"}


def on_arm(graph: Graph, folder: Path, target: str, **options: Any) -> None:
    """As :func:`check`, on an emulated core."""
    made = bundle(graph, folder, target=target, **options)
    flags = (*STRICT, "-static")
    program = folder.parent / f"{folder.name}.program"
    build([folder / "main.c", *parts(folder)], program, cross_compiler(board(target)), flags)
    assert_right(made, answers(made, folder, program, (EMULATOR, "-cpu", CORES[target])))


@pytest.mark.arm_emulation
@pytest.mark.parametrize("options", [{}, WHOLE], ids=["fp32", "int"])
@pytest.mark.parametrize("target", CORES)
def test_networks_on_arm_cores(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    on_arm(image_net(), tmp_path / "net", target, **options)
    on_arm(recurrent_net(), tmp_path / "recurrent", target, **options)


@pytest.mark.arm_emulation
@settings(max_examples=3, **few)
@given(net=networks())
def test_random_networks_on_an_arm_core(net: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        on_arm(net, Path(folder) / "net", "raspberry-pi-4")


@pytest.mark.arm_emulation
def test_code_for_a_newer_core_faults_on_an_older_one(tmp_path: Path) -> None:
    """Dense layers in int8 use the dot products of the Cortex-A76: the emulated Cortex-A72 refuses what it would."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((4, 6, 6)), 16))
    graph = net.output(net.neuron(net.conv(x, 16)))
    pipeline = DEFAULT_PIPELINE.replace("select-kernels", "select-kernels{kernel=dense}")
    made = bundle(graph, tmp_path / "net", target="raspberry-pi-5", pipeline=pipeline, **WHOLE)
    files, flags = [tmp_path / "net" / "main.c", *parts(tmp_path / "net")], (*STRICT, "-static")
    program = build(files, tmp_path / "program", cross_compiler(board("raspberry-pi-5")), flags)
    assert_right(made, answers(made, tmp_path / "net", program, (EMULATOR, "-cpu", "cortex-a76")))
    command = [EMULATOR, "-cpu", "cortex-a72", program, tmp_path / "net" / "net_weights.bin"]
    done = subprocess.run([*command, tmp_path / "net" / "example_input.bin"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGILL


@pytest.mark.cmake
@pytest.mark.arm_emulation
def test_cmake_with_a_toolchain_file(tmp_path: Path) -> None:
    made = bundle(image_net(), tmp_path / "net", target="aarch64")
    toolchain = tmp_path / "aarch64.cmake"
    toolchain.write_text(
        "set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR aarch64)\n"
        f"set(CMAKE_C_COMPILER {cross_compiler(board('aarch64'))[0]})\nset(CMAKE_EXE_LINKER_FLAGS -static)\n"
    )
    options = [f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", "-DCMAKE_BUILD_TYPE=Release", "-DNET_EMBED_WEIGHTS=ON"]
    run(["cmake", "-S", tmp_path / "net", "-B", tmp_path / "build", *options])
    run(["cmake", "--build", tmp_path / "build"])
    assert_right(made, answers(made, tmp_path / "net", tmp_path / "build" / "net_main", (EMULATOR,)))
