"""The scripts that hold benchmark networks against their ANN twins and count instructions, on small networks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import ROOT

from ldsnn_compiler.bench.network import build
from ldsnn_compiler.bench.ours import built
from ldsnn_compiler.data import Data
from ldsnn_compiler.schedule import Schedule
from ldsnn_compiler.targets.c.program import Call


def script(name: str) -> Iterator[ModuleType]:
    """A script of ``examples/benchmarks``, which import each other."""
    sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))
    yield importlib.import_module(name)
    sys.path.pop(0)


@pytest.fixture(scope="module")
def twins() -> Iterator[ModuleType]:
    yield from script("twins")


@pytest.fixture(scope="module")
def instructions() -> Iterator[ModuleType]:
    pytest.importorskip("unicorn")
    yield from script("instructions")


def test_schedules_are_those_within_the_budget(twins: ModuleType) -> None:
    found, chosen = twins.schedules(SimpleNamespace(base_timesteps=32), "mnist_cnn")
    drops = {row: found["figures"][row]["paired"]["drop"] for row in found["schedules"]}
    assert chosen and all(drops[row] <= 0.005 for row in chosen)
    assert all(row in chosen or drops[row] > 0.005 for row in drops if "T0" not in row)
    assert set(chosen["per layer, graded"].layers) == {"1", "4", "7", "11"}


def test_the_cost_of_whole_numbers_is_paired(twins: ModuleType) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    answers = {"a, fp32": labels, "a, int": torch.tensor([0, 1, 2, 0]), "b, int": labels}
    (name, found), *rest = twins.integer_cost(answers, labels).items()
    assert (name, found["lost"], found["won"], found["drop"]) == ("a, int", 1, 0, 0.25) and not rest


def test_regions_say_what_holds_a_network_back(twins: ModuleType) -> None:
    network = build("mlp", 2, 0.2)
    entry = twins.ours("all", built(network), data(network.images), uniform(network), "fp32", threads=1)
    found = twins.regions(entry.compiled, network.images.split(1))
    assert sum(region["synaptic_updates"] for region in found) > 0
    assert {"event", "dense"} >= {r["kernel"] for r in found} - {"plain"} and "| us |" in twins.regions_table(
        {"": found}
    )


@pytest.mark.unicorn
def test_parts_of_a_program_become_regions(instructions: ModuleType) -> None:
    calls = [Call("net_kernel_a", (), 0, ("x", "y")), Call("net_kernel_b", (), 0, ())]
    parts = [("net_kernel_a", 10), ("net_kernel_b", 1), ("net_kernel_a", 20), ("net_kernel_b", 1)]
    found = instructions.by_region(calls, parts, {"x": 5.0}, 2)
    assert found[0] == {"nodes": ["x", "y"], "instructions": 15.0, "synaptic_updates": 5.0}
    with pytest.raises(RuntimeError, match="other kernels"):
        instructions.by_region(calls, parts[:3], {}, 2)


@pytest.mark.unicorn
@pytest.mark.arm_emulation
def test_instructions_of_a_small_network(instructions: ModuleType) -> None:
    network = build("mlp", 2, 0.1, batch=2)
    arguments = (built(network), data(network.images), uniform(network), "raspberry-pi-4", "int")
    event, dense = (instructions.one(*arguments, kernel, network.images) for kernel in ("event", "dense"))
    assert 1000 < event["instructions"] < dense["instructions"]
    counted = sum(region["instructions"] for region in event["regions"])
    assert counted == pytest.approx(event["instructions"], rel=0.01)


def data(images: torch.Tensor) -> Data:
    """The images without labels, as both splits."""
    return Data((images, None), (images, None))


def uniform(network: object) -> Schedule:
    """The network as it is."""
    return Schedule.uniform(built(network), network.timesteps)
