"""What SpikingJelly users write over time, and around their modules: the imported graph gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from frontend_models import dyadic, make_dyadic
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend.tracer import import_model, trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.verify import verify

pytestmark = pytest.mark.spikingjelly

try:
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.functional import seq_to_ann_forward
except ModuleNotFoundError:  # the marker skips every test of this file
    functional = layer = neuron = seq_to_ann_forward = None

T = 8
Forward = Callable[[Any, Tensor], Any]


class Model(nn.Module):
    """A body of SpikingJelly modules used by a forward given as a function."""

    def __init__(self, forward: Forward, **parts: Any) -> None:
        super().__init__()
        self.code = forward
        self.body = body()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


def body() -> nn.Module:
    """conv and BatchNorm in a container, IF, average pool, linear, LIF; all multi-step."""
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)),
        neuron.IFNode(v_reset=None),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(64, 5),
        neuron.LIFNode(),
    )
    functional.set_step_mode(net, "m")
    return net


def static() -> Tensor:
    return dyadic(3, 1, 8, 8)


def sequence() -> Tensor:
    return dyadic(T, 3, 1, 8, 8)


def agree(model: nn.Module, *inputs: Tensor, timesteps: int | None = None) -> None:
    """Every output equal, bit for bit, to the model's own."""
    make_dyadic(model)
    functional.reset_net(model)
    with torch.no_grad():
        theirs = model(*inputs)
    functional.reset_net(model)
    graph = trace(model, inputs, timesteps)
    verify(graph)
    with torch.no_grad():
        ours = Interpreter(graph)(*inputs)
    expected, got = _flat(theirs), _flat(ours)
    assert [tuple(e.shape) for e in expected] == [tuple(g.shape) for g in got]
    assert all(torch.equal(e, g) for e, g in zip(expected, got, strict=True))
    assert any(e.any() for e in expected)


def _flat(result: Any) -> list[Tensor]:
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple) else [result]


MAKING_TIME: dict[str, Forward] = {
    "repeat": lambda m, x: m.body(x.unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0),
    "repeat_adding_an_axis": lambda m, x: m.body(x.repeat(T, 1, 1, 1, 1)).mean(dim=0),
    "expand": lambda m, x: m.body(x.unsqueeze(0).expand(T, -1, -1, -1, -1)).mean(0),
    "expand_to_shape": lambda m, x: m.body(x[None].expand(T, *x.shape)).mean(0),
    "stack": lambda m, x: m.body(torch.stack([x] * T)).mean(0),
    "stack_of_comprehension": lambda m, x: m.body(torch.stack([x for _ in range(T)], dim=0)).mean(0),
    "cat": lambda m, x: m.body(torch.cat([x.unsqueeze(0)] * T)).mean(0),
    "repeat_interleave": lambda m, x: m.body(x.unsqueeze(0).repeat_interleave(T, 0)).mean(0),
    "branch_on_rank": lambda m, x: m.body(x.unsqueeze(0).repeat(T, 1, 1, 1, 1) if x.dim() == 4 else x).mean(0),
}


@pytest.mark.parametrize("name", MAKING_TIME)
def test_model_that_repeats_its_input(name: str) -> None:
    model = Model(MAKING_TIME[name])
    agree(model, static())
    graph = trace(model, static())
    assert graph.base_timesteps == T
    (source,) = graph.inputs
    assert (source["time"], source.type.timesteps, source.type.dt) == ("static", 1, T)


READING_OUT: dict[str, tuple[Forward, str | None]] = {
    "everything": (lambda m, x: m.body(x), None),
    "mean": (lambda m, x: torch.mean(m.body(x), dim=0), "mean"),
    "sum": (lambda m, x: m.body(x).sum(0), None),
    "sum_over_T": (lambda m, x: m.body(x).sum(0) / x.shape[0], None),
    "last": (lambda m, x: m.body(x)[-1], "last"),
    "third": (lambda m, x: m.body(x)[2], "last"),
    "max": (lambda m, x: m.body(x).max(0)[0], "max"),
    "max_values": (lambda m, x: torch.max(m.body(x), 0).values, "max"),
    "amax": (lambda m, x: m.body(x).amax(0), "max"),
    "prefix": (lambda m, x: m.body(x)[:3], None),
    "prefix_of_the_input": (lambda m, x: m.body(x[:5]).mean(0), "mean"),
    "linear_after_mean": (lambda m, x: m.body[4](m.body[3](m.body[2](m.body[1](m.body[0](x)))).mean(0)), "mean"),
}


@pytest.mark.parametrize("name", READING_OUT)
def test_readout(name: str) -> None:
    forward, mode = READING_OUT[name]
    agree(Model(forward), sequence())
    graph = trace(make_dyadic(Model(forward)), sequence())
    assert [n["mode"] for n in graph.of("readout")] == ([mode] if mode else [])


def test_sum_over_time_is_the_mean_times_the_steps() -> None:
    graph = trace(make_dyadic(Model(lambda m, x: m.body(x).sum(0))), sequence())
    resample, scale = graph.of("resample")[-1], graph.of("scale")[-1]
    assert (resample["mode"], resample["dt"], scale["factor"]) == ("mean", T, float(T))


def test_mean_inside_the_network_is_a_resample() -> None:
    model = Model(
        lambda m, x: m.sn(m.body(x).mean(0).unsqueeze(0).repeat(T, 1, 1)).mean(0), sn=neuron.IFNode(step_mode="m")
    )
    agree(model, sequence())
    assert [n.path for n in trace(model, sequence()).of("readout")] == ["mean#2"]


def test_several_outputs_keep_names_and_order() -> None:
    def forward(m: Any, x: Tensor) -> dict[str, Tensor]:
        spikes = m.body(x)
        return {"rate": spikes.mean(0), "spikes": spikes}

    agree(Model(forward), sequence())
    graph = trace(make_dyadic(Model(forward)), sequence())
    assert [(n.name, n["time"]) for n in graph.outputs] == [("rate", "squeeze"), ("spikes", "sequence")]
    agree(Model(lambda m, x: tuple(forward(m, x).values())), sequence())


def test_two_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = layer.Linear(3, 4, step_mode="m"), layer.Linear(2, 4, step_mode="m")
            self.sn = neuron.IFNode(step_mode="m")

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.sn(self.left(a) + self.right(b))

    agree(Two(), dyadic(T, 5, 3), dyadic(T, 5, 2, seed=3))
    assert [n.name for n in trace(Two(), (torch.ones(T, 5, 3), torch.ones(T, 5, 2))).inputs] == ["a", "b"]


def _fold_by_hand(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x.flatten(0, 1))
    return m.sn(y.view(x.shape[0], x.shape[1], *y.shape[1:]))


def _fold_unpacked(m: Any, x: Tensor) -> Tensor:
    steps, batch, channels, height, width = x.shape
    return m.sn(m.conv(x.view(steps * batch, channels, height, width)).view(steps, batch, 4, 6, 6))


AROUND_MODULES: dict[str, tuple[Forward, Callable[[], dict[str, Any]]]] = {
    "fold_by_hand": (_fold_by_hand, lambda: {"conv": nn.Conv2d(1, 4, 3)}),
    "fold_unpacked": (_fold_unpacked, lambda: {"conv": nn.Conv2d(1, 4, 3)}),
    "unflatten": (
        lambda m, x: m.sn(m.conv(x.flatten(0, 1)).unflatten(0, (T, -1))),
        lambda: {"conv": nn.Conv2d(1, 4, 3)},
    ),
    "reshape": (
        lambda m, x: m.sn(m.conv(x.reshape(-1, 1, 8, 8)).reshape(T, -1, 4, 6, 6)),
        lambda: {"conv": nn.Conv2d(1, 4, 3)},
    ),
    "seq_to_ann_forward": (
        lambda m, x: m.sn(functional.seq_to_ann_forward(x, [m.conv, m.bn])),
        lambda: {"conv": nn.Conv2d(1, 4, 3), "bn": nn.BatchNorm2d(4)},
    ),
    "multi_step_forward": (
        lambda m, x: functional.multi_step_forward(x, (m.conv, m.single)),
        lambda: {"conv": nn.Conv2d(1, 4, 3), "single": neuron.IFNode()},
    ),
    "multi_step_container": (
        lambda m, x: m.block(x).mean(0),
        lambda: {
            "block": layer.MultiStepContainer(
                nn.Conv2d(1, 4, 3), nn.Sequential(neuron.IFNode(), nn.Flatten()), nn.Linear(144, 3)
            )
        },
    ),
    "step_mode_container": (
        lambda m, x: m.sn(m.block(x)),
        lambda: {"block": layer.StepModeContainer(False, "m", nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))},
    ),
    "step_mode_container_with_state": (
        lambda m, x: m.block(x),
        lambda: {"block": layer.StepModeContainer(True, "m", nn.Conv2d(1, 4, 3), neuron.LIFNode())},
    ),
    "dropout_and_voting": (
        lambda m, x: m.vote(m.sn(m.fc(m.drop(m.body(x))))).mean(0),
        lambda: {
            "drop": layer.Dropout(0.5, step_mode="m"),
            "fc": layer.Linear(5, 16, step_mode="m"),
            "vote": layer.VotingLayer(4, step_mode="m"),
        },
    ),
    "conv1d_stack": (
        lambda m, x: m.sn(m.pool(m.bn(m.conv(x.squeeze(2))))).mean(0),
        lambda: {
            "conv": layer.Conv1d(8, 4, 3, step_mode="m"),
            "bn": layer.BatchNorm1d(4, step_mode="m"),
            "pool": layer.MaxPool1d(2, step_mode="m"),
        },
    ),
    "residual": (lambda m, x: m.sn(m.conv(x) + x), lambda: {"conv": layer.Conv2d(1, 1, 3, padding=1, step_mode="m")}),
    "in_place_add": (
        lambda m, x: m.sn(_iadd(m.conv(x), x)),
        lambda: {"conv": layer.Conv2d(1, 1, 3, padding=1, step_mode="m")},
    ),
    "concat": (
        lambda m, x: m.sn(torch.cat([m.conv(x), x], dim=2)),
        lambda: {"conv": layer.Conv2d(1, 3, 3, padding=1, step_mode="m")},
    ),
    "called_twice": (
        lambda m, x: m.sn(m.conv(m.sn1(m.conv(x)))),
        lambda: {"conv": layer.Conv2d(1, 1, 3, padding=1, step_mode="m"), "sn1": neuron.IFNode(step_mode="m")},
    ),
    "membrane_of_the_last_step": (
        lambda m, x: (m.out(m.body(x)), m.out.v)[1],
        lambda: {"out": neuron.LIFNode(v_threshold=1e9, step_mode="m")},
    ),
    "membrane_sequence": (
        lambda m, x: (m.out(m.body(x)), m.out.v_seq),
        lambda: {"out": neuron.LIFNode(step_mode="m", store_v_seq=True)},
    ),
    "reset_in_forward": (lambda m, x: (functional.reset_net(m), m.body(x))[1], dict),
    "pools_as_functions": (
        lambda m, x: m.sn(F.max_pool2d(F.avg_pool2d(F.pad(x.flatten(0, 1), (1, 1, 2, 0)), 2), 2).view(T, -1, 1, 2, 2)),
        dict,
    ),
    "adaptive_pool": (
        lambda m, x: m.sn(torch.flatten(F.adaptive_avg_pool2d(x.flatten(0, 1), 1), 1).view(T, -1, 1)),
        dict,
    ),
    "global_mean": (lambda m, x: m.sn(x.mean([3, 4])), dict),
    "strided_slice": (lambda m, x: m.sn(x[:, :, :, ::2, 1:5]), dict),
    "chunks": (
        lambda m, x: (lambda parts: m.sn(parts[0] - parts[1]))(torch.chunk(m.conv(x), 2, 2)),
        lambda: {"conv": layer.Conv2d(1, 4, 3, step_mode="m")},
    ),
    "parameters": (
        lambda m, x: m.sn(m.conv(x) * m.gain + m.gain - 0.25),
        lambda: {"conv": layer.Conv2d(1, 3, 3, step_mode="m"), "gain": nn.Parameter(torch.ones(3, 1, 1))},
    ),
    "convolutions": (
        lambda m, x: m.sn(m.c(m.b(m.a(x)))),
        lambda: {
            "a": layer.Conv2d(1, 4, 3, padding="same", dilation=2, step_mode="m"),
            "b": layer.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, step_mode="m"),
            "c": layer.Conv2d(8, 2, (3, 2), padding=(0, 1), bias=False, step_mode="m"),
        },
    ),
    "imported_by_name": (lambda m, x: m.sn(seq_to_ann_forward(x, m.conv)), lambda: {"conv": nn.Conv2d(1, 4, 3)}),
    "operands_by_name": (lambda m, x: m.sn(m.conv(x=x)), lambda: {"conv": layer.Conv2d(1, 4, 3, step_mode="m")}),
    "zeros_to_start_from": (
        lambda m, x: m.sn(torch.zeros(x.shape[0], x.shape[1], 4, 6, 6) + m.conv(x)),
        lambda: {"conv": layer.Conv2d(1, 4, 3, step_mode="m")},
    ),
    "ones_to_add": (
        lambda m, x: m.sn(m.conv(x) - torch.ones(x.shape[0], x.shape[1], 4, 6, 6)),
        lambda: {"conv": layer.Conv2d(1, 4, 3, step_mode="m")},
    ),
    "python_sum": (
        lambda m, x: m.sn(sum([m.conv(x), x])),
        lambda: {"conv": layer.Conv2d(1, 1, 3, padding=1, step_mode="m")},
    ),
}


def _iadd(a: Tensor, b: Tensor) -> Tensor:
    a += b
    return a


@pytest.mark.parametrize("name", AROUND_MODULES)
def test_around_modules(name: str) -> None:
    forward, parts = AROUND_MODULES[name]
    agree(Model(forward, sn=neuron.IFNode(v_reset=None, step_mode="m"), **parts()), sequence())


def test_static_layers_before_the_repeat_run_once() -> None:
    model = Model(
        lambda m, x: m.sn(m.conv(x).unsqueeze(0).repeat(T, 1, 1, 1, 1)),
        conv=nn.Conv2d(1, 2, 3),
        sn=neuron.IFNode(step_mode="m"),
    )
    agree(model, static())
    assert trace(model, static()).node("conv").type.timesteps == 1


def _adding_up(m: Any, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[1], 4, 6, 6)
    for t in range(x.shape[0]):
        out = out + m.sn(m.conv(x[t]))
    return out / x.shape[0]


LOOPS: dict[str, tuple[Forward, Callable[[], Tensor]]] = {
    "over_indices": (lambda m, x: torch.stack([m.sn(m.conv(x[t])) for t in range(x.shape[0])]), sequence),
    "over_steps": (lambda m, x: torch.stack([m.sn(m.conv(step)) for step in x]), sequence),
    "adding_up": (_adding_up, sequence),
    "of_a_static_image": (lambda m, x: sum(m.sn(m.conv(x)) for _ in range(T)) / T, static),
}


@pytest.mark.parametrize("name", LOOPS)
def test_hand_written_loop(name: str) -> None:
    forward, example = LOOPS[name]
    agree(Model(forward, conv=nn.Conv2d(1, 4, 3), sn=neuron.IFNode()), example())


def test_single_step_model_over_a_sequence() -> None:
    model = make_dyadic(nn.Sequential(nn.Conv2d(1, 4, 3), neuron.LIFNode()))
    x = sequence()
    with torch.no_grad():
        theirs = torch.stack([model(step) for step in x])
        functional.reset_net(model)
        assert torch.equal(Interpreter(trace(model, x, T))(x), theirs)


def test_batch_of_one_and_another_batch() -> None:
    model = make_dyadic(
        Model(
            lambda m, x: m.sn(m.conv(x.flatten(0, 1)).view(T, -1, 144)).mean(0),
            conv=nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()),
            sn=neuron.IFNode(step_mode="m"),
        )
    )
    graph = trace(model, torch.zeros(T, 1, 1, 8, 8))
    with torch.no_grad():
        assert torch.equal(Interpreter(graph)(sequence()), model(sequence()))


def test_timesteps_must_agree() -> None:
    model = make_dyadic(Model(MAKING_TIME["repeat"]))
    with pytest.raises(ImportRefused, match="runs 8 timesteps, expected 4"):
        trace(model, static(), 4)
    assert trace(model, static(), T).base_timesteps == T


def test_fixed_batch_is_refused() -> None:
    (problem,) = import_model(Model(lambda m, x: m.body(x).view(T, 3, 5)), sequence()).problems
    assert (problem.where, problem.kind) == ("view", "view()")
