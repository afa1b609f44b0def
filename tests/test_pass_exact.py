"""Exact passes keep every output bit of random dyadic networks; running a pipeline twice changes nothing more."""

from __future__ import annotations

import random

import pytest
import torch
from graphs import SOFT_IF, assert_same_outputs, inputs_of, networks, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph, Node
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps
from ldsnn_compiler.pipeline import parse_pipeline, passes, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

GRAPH_LEVEL = (
    "canonicalize",
    "dead-code",
    "fold-batchnorm",
    "fold-scale",
    "fold-pool",
    "commute-resample",
    "drop-dead-timesteps",
)
BEFORE = "canonicalize,fold-batchnorm,fold-scale,fold-pool"
AFTER = "commute-resample,drop-dead-timesteps,canonicalize,dead-code"
WHOLE = f"{BEFORE},assign-timesteps,{AFTER}"
random_networks = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("pipeline", [*GRAPH_LEVEL, WHOLE])
@random_networks
@given(net=networks())
def test_outputs_are_identical(pipeline: str, net: Graph) -> None:
    after = run_pipeline(net.clone(), parse_pipeline(pipeline))
    assert_same_outputs(net, after)


@random_networks
@given(net=networks())
def test_a_second_run_finds_nothing(net: Graph) -> None:
    graph_level = parse_pipeline(f"{BEFORE},{AFTER}")
    run_pipeline(net, graph_level)
    once = graph_text(net)
    run_pipeline(net, graph_level)
    assert graph_text(net) == once


def test_the_graph_level_passes_say_they_are_exact() -> None:
    assert {name for name in GRAPH_LEVEL if not passes()[name].exact} == set()
    assert not passes()["assign-timesteps"].exact


@random_networks
@given(net=networks(neurons=SOFT_IF), seed=st.integers(0, 2**16))
def test_scheduled_networks_stay_identical_under_the_later_passes(net: Graph, seed: int) -> None:
    """assign-timesteps itself approximates; what follows it must not."""
    layers = _drawn(net, seed, (1, 2, 4, 8))
    former = [node.type for node in net.outputs]
    run_pipeline(net, [AssignTimesteps.of(Schedule(net.base_timesteps, layers))])
    later = run_pipeline(net.clone(), parse_pipeline(AFTER))
    assert_same_outputs(net, later)
    assert [(t.timesteps, t.dt, t.shape) for t in former] == [
        (n.type.timesteps, n.type.dt, n.type.shape) for n in later.outputs
    ]
    assert {p: n.type.timesteps for p, n in neuron_layers(net).items()} == {p: e.timesteps for p, e in layers.items()}


@random_networks
@given(net=networks(neurons=SOFT_IF), seed=st.integers(0, 2**16))
def test_any_number_of_timesteps_gives_a_legal_network_that_keeps_its_outputs(net: Graph, seed: int) -> None:
    layers = _drawn(net, seed, (1, 2, 3, 4, 5, 6, 7, 8))
    grids = {path: node.type.duration / layers[path].timesteps for path, node in neuron_layers(net).items()}
    former = [(n.type.timesteps, n.type.dt, n.type.shape) for n in net.outputs]
    later = run_pipeline(net, [AssignTimesteps.of(Schedule(net.base_timesteps, layers)), *parse_pipeline(AFTER)])
    assert [(n.type.timesteps, n.type.dt, n.type.shape) for n in later.outputs] == former
    assert {path: node.type.dt for path, node in neuron_layers(later).items()} == grids  # T may be cut, dt may not
    assert [tuple(y.shape[2:]) for y in run(later)] == [shape for _, _, shape in former]


@random_networks
@given(net=networks())
def test_types_tell_the_truth_about_events(net: Graph) -> None:
    """Every value of a stream of events is its unit times a whole number of at most its levels, means included."""
    run_pipeline(net, parse_pipeline(WHOLE))
    interpreter = Interpreter(net)
    interpreter.observers.append(_check_events)
    with torch.no_grad():
        interpreter.run(*inputs_of(net))


def _check_events(node: Node, inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
    for value, data in zip(node.results, outputs, strict=True):
        signal = value.type.signal
        if signal.is_event:
            counts = data / signal.unit
            assert torch.equal(counts, counts.round()) and counts.min() >= 0, node
            assert not signal.is_bounded or counts.max() <= signal.levels, node


def _drawn(net: Graph, seed: int, timesteps: tuple[int, ...]) -> dict[str, LayerSchedule]:
    """Timesteps and levels at random; the layers of one cycle are one layer here."""
    draw = random.Random(seed)
    return {
        path: LayerSchedule(draw.choice([t for t in timesteps if t <= node.type.timesteps]), draw.choice((1, 2, 4)))
        for path, node in neuron_layers(net).items()
    }
