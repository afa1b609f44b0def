"""What single passes refuse, share, and leave alone; the text of what they do is in the golden files."""

from __future__ import annotations

import logging
from fractions import Fraction

import pytest
import torch
from graphs import Net, assert_same_outputs, inputs_of, run

from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.passes.fold_batchnorm import refusals
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline


def _ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph]


def _after(graph: Graph, pipeline: str) -> Graph:
    after = run_pipeline(graph.clone(), parse_pipeline(pipeline))
    assert_same_outputs(graph, after)
    return after


def test_batch_norm_in_front_of_zero_padding_stays_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(4)
    spikes = net.neuron(net.input((2, 4, 4)))
    net.output(net.conv(net.batch_norm(spikes), 2, padding=1))
    with caplog.at_level(logging.INFO):
        assert "batch_norm" in _ops(_after(net.graph, "fold-batchnorm"))
    (problem,) = refusals(net.graph)
    assert "neuron before it has no weights" in str(problem) and "%conv2d pads with zeros" in str(problem)
    assert str(problem) in caplog.text


def test_batch_norm_in_front_of_zero_padding_folds_if_it_shifts_nothing() -> None:
    net = Net(4)
    normed = net.batch_norm(net.neuron(net.input((2, 4, 4))))
    for key in ("mean", "bias"):
        net.graph.set_attrs(normed.node, **{key: net.graph.tensor("zeros", torch.zeros(2))})
    net.output(net.conv(normed, 2, padding=1))
    assert "batch_norm" not in _ops(_after(net.graph, "fold-batchnorm"))


def test_batch_norm_folds_into_grouped_convs_and_all_of_its_users() -> None:
    net = Net(4)
    normed = net.batch_norm(net.neuron(net.input((4, 4, 4))))
    net.output(net.conv(normed, 6, 1, padding=0, groups=2), net.conv(normed, 4, 3, padding=0, groups=4, bias=False))
    assert "batch_norm" not in _ops(_after(net.graph, "fold-batchnorm"))


def test_a_conv_with_another_reader_keeps_its_batch_norm() -> None:
    net = Net(4)
    current = net.conv(net.input((2, 4, 4)), 2)
    net.output(net.batch_norm(current), current)
    assert "batch_norm" in _ops(_after(net.graph, "fold-batchnorm"))
    assert "has other users" in str(refusals(net.graph)[0])


def test_folding_leaves_shared_weights_alone() -> None:
    """One module called twice: two nodes refer to one tensor, and each gets its own folded copy."""
    net = Net(4)
    first = net.conv(net.input((2, 4, 4)), 2)
    again = net.op("conv2d", net.neuron(net.batch_norm(first)), **first.node.attrs)
    net.output(net.batch_norm(again))
    after = _after(net.graph, "fold-batchnorm")
    assert "batch_norm" not in _ops(after)
    assert after.node("conv2d")["weight"] != after.node("conv2d_2")["weight"]


@pytest.mark.parametrize("name", ["if", "leaky", "lif", "cuba_lif", "alif"])
def test_a_power_of_two_folds_into_thresholds(name: str) -> None:
    net = Net(8)
    net.output(net.neuron(net.op("scale", net.input((6,)), factor=4.0), neuron(name, v_init=0.25)))
    assert _ops(_after(net.graph, "fold-scale")) == ["input", "neuron", "output"]


@pytest.mark.parametrize(("name", "factor"), [("if", 0.75), ("if", -1.0), ("izhikevich", 2.0), ("li", 2.0)])
def test_other_factors_and_other_neurons_keep_the_scale(name: str, factor: float) -> None:
    net = Net(8)
    net.output(net.neuron(net.op("scale", net.input((6,)), factor=factor), neuron(name)))
    assert "scale" in _ops(_after(net.graph, "fold-scale"))


def test_a_scale_per_channel_folds_into_weights_before_and_after() -> None:
    net = Net(4)
    by = net.graph.tensor("by", torch.tensor([0.5, 2.0]))
    x = net.op("scale", net.neuron(net.conv(net.input((2, 4, 4)), 2)), by=by)
    y = net.op("scale", net.conv(x, 2), by=by)
    net.output(net.linear(net.op("flatten", net.op("scale", net.neuron(y), by=by)), 3))
    assert "scale" not in _ops(_after(net.graph, "fold-scale"))


def test_uneven_averages_commute_with_linear_ops() -> None:
    """12 -> 5 steps and back to 7: a conv between runs at 5, within rounding of the fp32 shares."""
    net = Net(12)
    coarse = net.resample(net.conv(net.neuron(net.input((2, 4, 4))), 2), Fraction(12, 5))
    net.output(net.conv(net.resample(coarse, Fraction(12, 7)), 2))
    after = run_pipeline(net.graph.clone(), parse_pipeline("commute-resample"))
    assert [after.node(n).type.timesteps for n in ("conv2d", "conv2d_2")] == [5, 5]
    for a, b in zip(run(net.graph), run(after, inputs_of(net.graph)), strict=True):
        assert a.abs().max() < 16  # so each of 2 * 18 additions rounds to within 16 * 2**-24
        torch.testing.assert_close(a, b, rtol=0, atol=36 * 16 * 2**-24)


def test_no_linear_op_is_ever_duplicated() -> None:
    net = Net(8)
    current = net.conv(net.neuron(net.input((2, 4, 4))), 2)
    users = [net.neuron(net.resample(current, dt)) for dt in (2, 4, 8)]
    net.output(*[net.resample(u, 8) for u in users])
    after = _after(net.graph, "commute-resample")
    assert _ops(after).count("conv2d") == 1
    assert after.node("conv2d").type.timesteps == 4


def test_nothing_crosses_a_product_of_streams_but_a_repeat() -> None:
    net = Net(8)
    a = net.neuron(net.input((3, 3)))
    held = net.resample(net.resample(a, 4), 1, "repeat")
    net.output(net.resample(net.op("matmul", a, a), 4), net.op("matmul", held, held))
    after = _after(net.graph, "commute-resample")
    assert [after.node(n).type.timesteps for n in ("matmul", "matmul_2")] == [8, 2]


def test_last_and_largest_of_held_values_need_them_once() -> None:
    net = Net(8)
    held = net.linear(net.resample(net.neuron(net.resample(net.input((4,)), 4)), 1, "repeat"), 3)
    net.output(net.op("readout", held, mode="last"), net.op("readout", held, mode="max"))
    assert _after(net.graph, "commute-resample").node("linear").type.timesteps == 2


def test_a_latency_code_and_a_last_readout_need_every_step() -> None:
    net = Net(8)
    coded = net.op("encode", net.input((4,)), code="latency")
    last = net.op("readout", net.linear(coded, 2), mode="last")
    net.output(net.op("slice_time", net.neuron(coded), steps=2), last)
    after = _after(net.graph, "drop-dead-timesteps")
    assert [after.node(n).type.timesteps for n in ("encode", "linear", "sn")] == [8, 8, 2]


def test_a_cycle_is_cut_as_a_whole() -> None:
    net = Net(8)
    spikes = net.recurrent(net.linear(net.input((4,)), 3))
    net.output(net.op("slice_time", spikes, steps=2))
    after = _after(net.graph, "drop-dead-timesteps")
    assert {after.node(n).type.timesteps for n in ("linear", "add", "sn", "delay")} == {2}


def test_dead_cycles_go_and_inputs_stay() -> None:
    net = Net(4)
    x = net.input((3,))
    net.graph.add("input", type=x.type, name="unused")
    net.recurrent(x)
    net.output(net.neuron(x))
    assert _ops(_after(net.graph, "dead-code")) == ["input", "input", "neuron", "output"]


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "window", "folds"),
    [
        (5, 1, 1, 2, True),
        (3, 2, 1, 2, True),
        (3, 1, 1, 4, True),
        (1, 1, 1, 2, False),
        (2, 1, 1, 4, False),
        (3, 1, 2, 4, False),
    ],
)
@pytest.mark.parametrize("kind", ["avg", "sum"])
def test_pools_fold_into_convolutions_where_that_multiplies_less(
    kernel: int, stride: int, dilation: int, window: int, folds: bool, kind: str
) -> None:
    """Sizes that do not divide too."""
    net = Net(2)
    current = net.conv(net.input((2, 14, 14)), 3, kernel, stride, padding=kernel // 2)
    net.graph.set_attrs(current.node, dilation=(dilation, dilation))
    net.output(net.neuron(net.pool(current, kind, window)))
    assert (f"{kind}_pool" not in _ops(_after(net.graph, "fold-pool"))) == folds


def test_a_global_pool_folds_unless_the_weights_grow_too_much() -> None:
    for size, stays in ((4, False), (8, True)):
        net = Net(2)
        net.output(net.op("adaptive_avg_pool", net.conv(net.input((2, size, size)), 3), size=(1, 1)))
        assert ("adaptive_avg_pool" in _ops(_after(net.graph, "fold-pool"))) == stays


def test_pools_of_shared_currents_and_pools_that_pad_stay() -> None:
    net = Net(2)
    x = net.input((2, 8, 8))
    shared = net.conv(x, 3)
    padded = net.op("avg_pool", net.conv(x, 3), kernel=(2, 2), stride=(2, 2), padding=(1, 1))
    net.output(net.pool(shared), shared, padded)
    assert _ops(_after(net.graph, "fold-pool")).count("avg_pool") == 2
