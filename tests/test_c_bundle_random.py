"""Random networks as C programs, here and on an emulated ARM core: runs, steps and state are the interpreter's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from c_harness import STRICT, WHOLE, answers, assert_right, build, bundle, check, parts
from emulation.machine import EMULATOR
from graphs import SOFT_IF, networks
from hypothesis import HealthCheck, given, settings
from test_c_bundle import image_net, recurrent_net

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.targets import board
from ldsnn_compiler.targets.link import cross_compiler

few = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@settings(max_examples=5, **few)
@given(net=networks())
def test_random_networks(net: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(net, Path(folder) / "net")


@settings(max_examples=3, **few)
@given(net=networks(neurons=SOFT_IF, slices=False, recurrent=False))
def test_scheduled_random_networks(net: Graph) -> None:
    layers = {path: LayerSchedule(max(1, node.type.timesteps // 2), 2) for path, node in neuron_layers(net).items()}
    with tempfile.TemporaryDirectory() as folder:
        check(net, Path(folder) / "net", schedule=Schedule(net.base_timesteps, layers))


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
