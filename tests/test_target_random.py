"""Random networks through the whole pipeline: bit for bit what the interpreter says of original and result."""

from __future__ import annotations

import random

import torch
from graphs import SOFT_IF, inputs_of, networks, run, some_schedule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from target_harness import assert_equal, check, check_steps, compiled

from ldsnn_compiler.ir.graph import Graph

few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@few
@given(net=networks(), batch=st.sampled_from((1, None)))
def test_compiled_equals_the_original(net: Graph, batch: int | None) -> None:
    network = compiled(net, batch=batch)
    data = inputs_of(net, 1 if batch else 3)
    assert_equal("run", network.run(*data), run(net, data))
    check_steps(network, data, 1)


@few
@given(net=networks(neurons=SOFT_IF, slices=False), seed=st.integers(0, 2**16))
def test_scheduled_networks_equal_the_interpreter(net: Graph, seed: int) -> None:
    """A schedule approximates; the interpreter of the scheduled graph and the compiled code agree on it."""
    check(net, schedule=some_schedule(net, random.Random(seed)))


def test_one_library_serves_any_batch() -> None:
    from test_target_plain import streamed

    network = compiled(streamed(), batch=None, pipeline="")
    for batch in (1, 3, 2):
        data = inputs_of(network.graph, batch)
        assert_equal(f"batch {batch}", network.run(*data), run(network.graph, data))
        check_steps(network, data, 1)
    assert torch.equal(network.run(*data)[0], network.run(*data)[0])
