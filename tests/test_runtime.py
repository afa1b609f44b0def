"""The compiled object: layouts, validation, state, streaming, profiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import Net, inputs_of
from target_harness import assert_equal, check, compiled

from ldsnn_compiler.driver import compile
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.runtime import Compiled
from ldsnn_compiler.runtime.profile import _aligned
from ldsnn_compiler.targets import board


def _classifier(time: str) -> Compiled:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6), time), 4))
    return compiled(net.output(net.op("readout", net.linear(net.op("flatten", x), 3), mode="mean")), batch=None)


@pytest.fixture(scope="module")
def static() -> Compiled:
    return _classifier("static")


@pytest.fixture(scope="module")
def stream() -> Compiled:
    """Frames in, spikes and membrane out, state in two layers."""
    net = Net(8)
    x = net.neuron(net.conv(net.input((2, 4, 4)), 3), neuron("lif", tau=2.0))
    y = net.neuron(net.linear(net.op("flatten", x), 5), neuron("if"), membrane=True)
    return compiled(net.output(y, y.node.results[1]), batch=None)


def test_the_users_layout(static: Compiled) -> None:
    (x,) = inputs_of(static.graph, 3)
    wanted = Interpreter(static.graph)(x[0])
    found = static(x[0])
    assert isinstance(found, torch.Tensor) and found.shape == (3, 3)
    assert torch.equal(found, wanted)
    assert torch.equal(static(x[0].numpy()), found)  # type: ignore[arg-type]


def test_two_outputs_come_as_a_tuple(stream: Compiled) -> None:
    found = stream(*inputs_of(stream.graph, 1))
    assert isinstance(found, tuple) and [list(y.shape) for y in found] == [[8, 1, 5], [8, 1, 5]]


def test_data_at_any_address(static: Compiled) -> None:
    """Generated code loads whole vectors; slices of numpy arrays begin anywhere."""
    (x,) = inputs_of(static.graph, 2)
    store = np.zeros(x.numel() + 1, np.float32)
    store[1:] = x.numpy().ravel()
    odd = store[1:].reshape(x.shape[1:])
    assert torch.equal(static(odd), static(x[0]))  # type: ignore[arg-type]
    turned = x[0].permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert torch.equal(static(turned), static(x[0]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: (x.double(),), "x: expected float32 data, found float64"),
        (lambda x: (x.numpy().astype(np.int64),), "x: expected float32 data, found int64"),
        (lambda x: (x.to_sparse(),), "x: expected dense data, found sparse_coo"),
        (lambda x: (x[:, :1],), r"x: expected data of shape \[1, N, 2, 6, 6\], found \[1, 2, 1, 6, 6\]"),
        (lambda x: (x[None],), r"expected data of shape \[1, N, 2, 6, 6\]"),
        (lambda x: (x[:0],), r"found \[1, 0, 2, 6, 6\]"),
        (lambda x: (x, x), "takes 1 input, found 2"),
        (lambda x: ([1.0],), "expected a torch tensor or a numpy array, found list"),
    ],
)
def test_wrong_data_is_refused_in_one_line(static: Compiled, data: object, message: str) -> None:
    (x,) = inputs_of(static.graph, 2)
    with pytest.raises(LdsnnError, match=message) as error:
        static(*data(x[0]))  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_the_batch_is_fixed_where_it_was_compiled_so() -> None:
    net = Net(2)
    network = compiled(net.output(net.neuron(net.input((3,)))), batch=2)
    with pytest.raises(LdsnnError, match=r"expected data of shape \[2, 2, 3\], found \[2, 5, 3\]"):
        network(torch.zeros(2, 5, 3))
    with pytest.raises(LdsnnError, match="compiled for batch 2, found 3"):
        network.reset(3)


@pytest.mark.parametrize("options", [{"batch": 0}, {"threads": 0}, {"target": "potato"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    net = Net(2)
    with pytest.raises(LdsnnError):
        compile(net.output(net.neuron(net.input((3,)))), **options)  # type: ignore[arg-type]


def test_compiling_leaves_the_graph_alone_and_reports_progress() -> None:
    from ldsnn_compiler.ir.text import graph_text

    net, seen = Net(2), []
    graph = net.output(net.neuron(net.input((3,))))
    before = graph_text(graph)
    network = compile(graph, threads=1, progress=lambda what, share: seen.append(share))
    assert graph_text(graph) == before
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0
    assert network.graph.stage == "fused"


def test_steps_equal_one_run_and_state_can_be_carried(stream: Compiled) -> None:
    (x,) = inputs_of(stream.graph, 2)
    whole = stream.run(x)
    stream.reset()
    first = stream.step(x[:3])
    kept, at = stream.state, stream.base_step
    rest = stream.step(x[3:])
    assert_equal("steps", tuple(torch.cat(p) for p in zip(first, rest, strict=True)), whole)
    stream.reset()
    assert stream.state == {} and stream.base_step == 0
    stream.state = kept
    stream.base_step = at
    assert_equal("resumed", stream.step(x[3:]), rest)


def test_running_leaves_the_streaming_state_alone(stream: Compiled) -> None:
    (x,) = inputs_of(stream.graph, 2)
    stream.reset()
    stream.step(x[:2])
    before = stream.state
    stream.run(x)
    after = stream.state
    assert all(torch.equal(before[n][k], after[n][k]) for n in before for k in before[n])


def test_the_batch_changes_with_a_reset(stream: Compiled) -> None:
    (x,) = inputs_of(stream.graph, 2)
    stream.reset()
    stream.step(x[:1])
    with pytest.raises(LdsnnError, match=r"expected data of shape \[1, 2, 2, 4, 4\], found \[1, 1, 2, 4, 4\]"):
        stream.step(x[:1, :1])
    stream.reset()
    stream.step(x[:1, :1])
    assert stream.state["sn"]["v"].shape == (1, 3, 4, 4)


def test_wrong_state_is_refused(stream: Compiled) -> None:
    (x,) = inputs_of(stream.graph, 2)
    stream.reset()
    stream.step(x[:1])
    state = stream.state
    state["ghost"] = {"v": torch.zeros(1)}
    del state["sn_2"]
    state["sn"]["v"] = torch.zeros(2, 3)
    with pytest.raises(LdsnnError) as error:
        stream.state = state
    assert [p.where for p in error.value.problems] == ["ghost", "sn_2", "sn"]


def test_a_step_is_whole_granules(static: Compiled) -> None:
    (x,) = inputs_of(static.graph, 1)
    static.reset()
    with pytest.raises(LdsnnError):
        static.step(x[0])
    assert_equal("step", static.step(x), static.run(x))


def test_profile_counts_what_the_interpreter_counts(stream: Compiled) -> None:
    (x,) = inputs_of(stream.graph, 2)
    found = stream.profile(x, repeats=3)
    assert found.latency_ms > 0 and found.latency_ms_iqr >= 0
    assert [r.nodes for r in found.regions] == [k.nodes for k in stream.plans["run"].kernels]
    assert sum(r.ms for r in found.regions) > 0
    assert {row["name"] for row in found.layers} >= {"sn", "sn_2", "conv2d", "linear"}
    assert found.totals["neurons_evaluated"] == 8 * (3 * 16 + 5)
    stream.run(x)


def test_a_call_that_is_missing_or_out_of_order_shifts_no_other_time():
    calls = [("b", 2.0), ("a", 1.0), ("other", 9.0), ("c", 3.0), ("c", 4.0), ("d", 5.0)]
    assert _aligned(["a", "b", "c", "c", "e", "d"], calls)[2:] == [3.0, 4.0, 0.0, 5.0]
    assert _aligned(["b", "e", "c", "c", "d"], calls) == [2.0, 0.0, 3.0, 4.0, 5.0]


def test_results_stay_as_they_are(static: Compiled) -> None:
    (x,) = inputs_of(static.graph, 2)
    first = static.run(x)[0]
    kept = first.clone()
    static.run(x * 0.5)
    assert torch.equal(first, kept)


def test_an_output_that_is_a_view_of_an_input_is_a_copy() -> None:
    net = Net(2)
    network = compiled(net.output(net.op("flatten", net.input((2, 3)))), pipeline="")
    x = inputs_of(network.graph, 2)[0]
    (y,) = network.run(x)
    wanted = y.clone()
    x.zero_()
    assert torch.equal(y, wanted)


def test_code_for_another_machine_is_not_run() -> None:
    net = Net(2)
    graph = net.output(net.neuron(net.input((3,))))
    other = replace(board("x86-64-v3"), name="other", features=("avx10.9",))
    network = compile(graph, target=other, threads=1)
    with pytest.raises(LdsnnError, match=r"compiled for other \(x86-64-v3\), this machine lacks avx10\.9"):
        network.run(*inputs_of(graph, 1))


@pytest.mark.parametrize("target", ["x86-64-v3", "native"])
def test_every_vector_width_gives_the_same(target: str) -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((3, 6, 6)), 20))
    graph = net.output(net.neuron(net.conv(net.pool(x), 12), neuron("if", max_count=4)))
    if board(target).missing():
        pytest.fail(f"the tests run on machines that have {target}")
    check(graph, target=target)


def test_threads_are_stated_and_do_not_change_results() -> None:
    net = Net(2)
    graph = net.output(net.neuron(net.conv(net.input((3, 8, 8)), 8)))
    one, two = (compile(graph, threads=n) for n in (1, 2))
    data = inputs_of(graph, 1)
    assert (one.settings.threads, two.settings.threads) == (1, 2)
    assert_equal("threads", one.run(*data), two.run(*data))
