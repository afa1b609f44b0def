"""Exact passes keep every output bit of random dyadic networks; running a pipeline twice changes nothing more."""

from __future__ import annotations

import random

import pytest
from graphs import SOFT_IF, assert_same_outputs, networks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.passes.assign_timesteps import AssignTimesteps
from ldsnn_compiler.pipeline import parse_pipeline, passes, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers

GRAPH_LEVEL = (
    "canonicalize",
    "dead-code",
    "fold-batchnorm",
    "fold-scale",
    "commute-resample",
    "drop-dead-timesteps",
)
BEFORE, AFTER = "canonicalize,fold-batchnorm,fold-scale", "commute-resample,drop-dead-timesteps,canonicalize,dead-code"
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
    draw = random.Random(seed)
    layers = {
        path: LayerSchedule(draw.choice([t for t in (1, 2, 4, 8) if t <= node.type.timesteps]), draw.choice((1, 2, 4)))
        for path, node in neuron_layers(net).items()
    }
    former = [node.type for node in net.outputs]
    run_pipeline(net, [AssignTimesteps.of(Schedule(net.base_timesteps, layers))])
    later = run_pipeline(net.clone(), parse_pipeline(AFTER))
    assert_same_outputs(net, later)
    assert [(t.timesteps, t.dt, t.shape) for t in former] == [
        (n.type.timesteps, n.type.dt, n.type.shape) for n in later.outputs
    ]
    assert {p: n.type.timesteps for p, n in neuron_layers(net).items()} == {p: e.timesteps for p, e in layers.items()}
