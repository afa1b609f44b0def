"""The last layer fitted to the original's scores: found where it may change, and changed only to advantage."""

from __future__ import annotations

import torch
from graphs import Net
from search_worker import data, network

from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify
from ldsnn_compiler.search.evaluate import Evaluator
from ldsnn_compiler.search.options import space
from ldsnn_compiler.search.recalibrate import Recalibration
from ldsnn_compiler.search.scores import fit_scores, scoring


def scores_of(graph: Graph, features: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Interpreter(graph).run(features)[0].mean(0)


def alone(bias: bool = True) -> Graph:
    net = Net(4)
    return net.output(net.op("readout", net.linear(net.input((6,)), 3, bias=bias), mode="mean"))


def test_weights_that_are_wrong_are_put_right() -> None:
    graph = alone()
    layer = scoring(graph)
    assert layer is not None and layer.op.name == "linear"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, 6, generator=generator)
    wanted = x.mean(0) @ torch.randn(6, 3, generator=generator) + 1.0
    before = (scores_of(graph, x) - wanted).square().mean()
    assert fit_scores(graph, layer, x.mean(0), wanted)
    verify(graph)
    assert (scores_of(graph, x) - wanted).square().mean() < 0.01 * before


def test_nothing_is_changed_for_noise_or_for_few_samples() -> None:
    graph = alone()
    layer, generator = scoring(graph), torch.Generator().manual_seed(0)
    assert layer is not None
    x = torch.randn(4, 64, 6, generator=generator)
    noise = torch.randn(32, 3, generator=generator)
    right = scores_of(graph, x)
    wanted = right + torch.cat([noise, -noise])[torch.randperm(64, generator=generator)]
    assert not fit_scores(graph, layer, x.mean(0), right)
    assert not fit_scores(graph, layer, x.mean(0), wanted)
    assert not fit_scores(graph, layer, x.mean(0)[:7], wanted[:7])
    assert torch.equal(scores_of(graph, x), right)


def test_only_layers_whose_mean_is_the_score() -> None:
    net = Net(4)
    assert scoring(net.output(net.op("readout", net.linear(net.input((6,)), 3), mode="last"))) is None
    net = Net(4)
    assert scoring(net.output(net.neuron(net.linear(net.input((6,)), 3)))) is None
    net = Net(4)
    shared = net.linear(net.input((6,)), 3)
    assert scoring(net.output(net.op("add", shared, shared))) is None


def test_scores_of_a_scheduled_network_come_nearer_on_samples_not_used() -> None:
    graph, x = network(), data(count=256).calibration[0]
    plain = Evaluator(graph, x).prepare(space(graph, "binary").schedule((2, 2, 2)))
    recalibration = Recalibration(graph, x[None])
    fitted = plain.clone()
    assert recalibration.fit_scores(fitted)
    unused = recalibration.judge
    assert recalibration.scored.shape[1] + unused.shape[1] == len(x)
    wanted = scores_of(graph, unused)
    errors = [float((scores_of(each, unused) - wanted).square().mean()) for each in (fitted, plain)]
    assert errors[0] < errors[1]
