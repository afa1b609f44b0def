"""Which nodes fuse, which values stay in bits, and what a chain of layers becomes."""

from __future__ import annotations

import pytest
from graphs import Net
from target_harness import check, compiled, kernels

from ldsnn_compiler.driver import DEFAULT_PIPELINE
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.schedule import LayerSchedule, Schedule


def fused(graph: Graph, **options: str) -> Graph:
    """The graph after the default pipeline, ``options`` given to select-kernels."""
    text = ",".join(f"{k}={v}" for k, v in {"target": "znver4", **options}.items())
    return run_pipeline(graph, parse_pipeline(DEFAULT_PIPELINE.replace("select-kernels", f"select-kernels{{{text}}}")))


def regions(graph: Graph) -> dict[str, list[str]]:
    """Ops of each region, by its name."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.placement:
            found.setdefault(node.placement.region, []).append(node.op.name)
    return found


def forms(graph: Graph) -> dict[str, str]:
    return {n.name: n.placement.form for n in graph.nodes if n.placement and n.op.name in ("neuron", "avg_pool")}


def chain() -> Graph:
    """Static image, conv, IF, pool, conv, IF, flatten, linear, mean."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 8, 8), "static"), 8))
    x = net.neuron(net.conv(net.pool(x), 16))
    return net.output(net.op("readout", net.linear(net.op("flatten", x), 5), mode="mean"))


def residual() -> Graph:
    """A block with an identity shortcut and one with a convolution in it."""
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 4))
    y = net.neuron(net.op("add", net.conv(net.neuron(net.conv(x, 4)), 4), x))
    wide = net.op("add", net.conv(net.neuron(net.conv(y, 6, stride=2)), 6), net.conv(y, 6, 1, 2, 0))
    return net.output(net.neuron(wide))


def test_a_chain_stays_in_bits() -> None:
    network = check(chain(), 1, density={"avg_pool": 0.1})
    run = kernels(network)
    assert run[-5:-1] == ["dense_scan", "avg_pool_bits", "event_scan", "event"]
    assert forms(network.graph) == {"sn": "bits", "avg_pool": "planes", "sn_2": "bits"}


def test_the_readout_runs_once_behind_the_mean() -> None:
    """The mean rises above the linear layer, which is one region of one timestep that reads bits of all."""
    network = compiled(chain())
    (linear,) = network.graph.of("linear")
    assert linear.type.timesteps == 1
    last = network.plans["run"].kernels[-2:]
    assert [k.name for k in last] == ["event", "dense_to_canonical"]
    assert "flatten" in last[0].nodes[0] or "flatten" in "".join(last[0].nodes)


def test_a_static_first_layer_runs_once() -> None:
    network = compiled(chain())
    first = next(k for k in network.plans["run"].kernels if k.name == "dense_scan")
    assert network.graph.node(first.nodes[0]).type.timesteps == 1
    assert {network.graph.node(n).op.name for n in first.nodes} == {"conv2d", "resample", "neuron"}


def test_shortcuts_join_their_region() -> None:
    graph = fused(residual())
    assert sorted(map(sorted, regions(graph).values())) == [
        ["add", "conv2d", "conv2d", "neuron"],
        ["add", "conv2d", "neuron"],
        ["conv2d", "neuron"],
        ["conv2d", "neuron"],
        ["conv2d", "neuron"],
    ]
    assert set(forms(graph).values()) == {"bits", "dense"}


def test_residual_blocks_are_exact_and_never_unpacked() -> None:
    network = check(residual())
    assert not [k for k in kernels(network) if k.startswith("bits_to")]


@pytest.mark.parametrize(
    "program", [neuron("if", max_count=4, threshold=0.5, spike_value=0.25), neuron("if", max_count=0)]
)
def test_graded_events_travel_in_planes_or_as_numbers(program: object) -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 4), program)  # type: ignore[arg-type]
    network = check(net.output(net.neuron(net.conv(net.pool(x, "max"), 4))))
    bounded = program.signal.is_bounded  # type: ignore[attr-defined]
    assert forms(network.graph)["sn"] == ("planes" if bounded else "dense")


def test_per_channel_and_per_neuron_parameters() -> None:
    net = Net(4)
    x = net.conv(net.input((2, 4, 4)), 3)
    channel = net.graph.tensor("th", net.dyadic(3, low=4))
    each = net.graph.tensor("decay", net.dyadic(3, 4, 4, low=1, high=4))
    y = net.neuron(x, neuron("leaky", beta=each, threshold=channel), membrane=True)
    check(net.output(y, y.node.results[1]))


def test_one_dimensional_layers() -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((3, 12)), 4, 5, 2, 2))
    check(net.output(net.neuron(net.linear(net.op("flatten", net.pool(x)), 6))))


def test_density_decides_between_walking_and_multiplying() -> None:
    sparse = fused(chain(), density='"{\\"avg_pool\\": 0.01}"')
    full = fused(chain(), density='"{\\"avg_pool\\": 1.0}"')
    assert sparse.node("conv2d_2").placement.kernel == "event"  # type: ignore[union-attr]
    assert full.node("conv2d_2").placement.kernel == "dense"  # type: ignore[union-attr]


@pytest.mark.parametrize("kernel", ["event", "dense"])
def test_both_kernels_are_exact(kernel: str) -> None:
    text = DEFAULT_PIPELINE.replace("select-kernels", f"select-kernels{{kernel={kernel}}}")
    network = check(residual(), pipeline=text)
    assert any(k.startswith(f"{kernel}_") for k in kernels(network))


@pytest.mark.parametrize("kernel", ["event", "dense"])
def test_averages_over_timesteps_that_no_region_takes_in_stay_in_bits(kernel: str) -> None:
    """A layer that reads fewer timesteps than it emits averages before its synapses and holds behind them."""
    net = Net(8)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 8))
    y = net.conv(net.neuron(net.conv(x, 8)), 8)
    graph = net.output(net.neuron(net.op("add", y, x)))
    schedule = Schedule(8, {path: LayerSchedule(8, input_timesteps=2) for path in ("sn", "sn_2", "sn_3")})
    made = check(graph, schedule=schedule, density=dict.fromkeys(("sn", "sn_2"), 0.01 if kernel == "event" else 1.0))
    assert kernels(made).count("resample_bits") == 2, "what two layers read is averaged once"


def test_layers_of_equal_shape_share_code() -> None:
    net = Net(2)
    x = net.neuron(net.input((8, 4, 4)))
    for _ in range(3):
        x = net.neuron(net.conv(x, 8))
    network = compiled(net.output(x))
    run = network.plans["run"].kernels
    middle = [k for k in run if k.name == "event_scan"]
    assert len(middle) == 3 and len({k.key for k in middle[:2]}) == 1


def test_a_cycle_is_one_region_with_time_outside() -> None:
    net = Net(4)
    graph = fused(net.output(net.recurrent(net.linear(net.neuron(net.input((5,))), 3))))
    (cycle,) = {n.placement.region for n in graph.nodes if n.placement and n.placement.order == "outside"}
    assert sorted(regions(graph)[cycle]) == ["add", "delay", "neuron", "scale"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "potato"}, "unknown target 'potato'"),
        ({"density": '"{"'}, "densities are not JSON"),
        ({"density": '"{\\"conv2d\\": 2}"'}, "conv2d: a density is between 0 and 1, not 2"),
        ({"kernel": "magic"}, "kernel is event or dense, not 'magic'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(LdsnnError, match=message):
        fused(chain(), **options)
