"""What cannot be imported is refused by module path, class and attribute, everything at once, also in the report."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused, LdsnnError
from ldsnn_compiler.frontend import registry, trace
from ldsnn_compiler.frontend.registry import FrontEnd, Tables, front_ends
from ldsnn_compiler.frontend.report import check
from ldsnn_compiler.frontend.tracer import import_model

try:
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
except ModuleNotFoundError:  # the marker skips the tests that need it
    functional = layer = neuron = surrogate = None


class Faulty(nn.Module):
    """One fault per line of forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
        self.block = Branching()
        self.norm = nn.BatchNorm2d(2, track_running_stats=False)
        self.layer_norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.block(x)
        x = torch.sigmoid(self.norm(x))
        return self.layer_norm(x)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        return x if bool(x.sum() > 0) else -x


def test_everything_at_once() -> None:
    with pytest.raises(ImportRefused) as caught:
        trace(Faulty().eval(), torch.ones(1, 2, 8, 8))
    found = {(p.where, p.kind, p.attribute) for p in caught.value.problems}
    assert found >= {
        ("conv", "Conv2d", "padding_mode"),
        ("block.act", "ReLU", ""),
        ("block", "Branching", "forward"),
        ("norm", "BatchNorm2d", "track_running_stats"),
        ("sigmoid", "sigmoid()", ""),
        ("layer_norm", "LayerNorm", ""),
    }
    assert all(p.hint for p in caught.value.problems if p.kind != "gt()")


REFUSED: dict[str, tuple[Any, tuple[str, str, str]]] = {
    "relu": (lambda m, x: F.relu(x), ("relu", "relu()", "ld.convert")),
    "relu_method": (lambda m, x: x.relu(), ("relu", "relu()", "ld.convert")),
    "softmax": (lambda m, x: x.softmax(1), ("softmax", "softmax()", "leave it out")),
    "quotient": (lambda m, x: x / x, ("truediv", "truediv()", "constants")),
    "mean_over_everything": (lambda m, x: x.mean(), ("mean", "mean()", "dimensions")),
    "mean_over_channels": (lambda m, x: x.mean(1), ("mean", "mean()", "global pooling")),
    "batch_into_features": (lambda m, x: x.flatten(), ("flatten", "flatten()", "batch")),
    "transposed_features": (lambda m, x: x.transpose(1, 2), ("transpose", "transpose()", "order")),
    "boolean_index": (lambda m, x: x[x > 0], ("gt", "gt()", "")),
    "value_of_a_tensor": (lambda m, x: x + x.max().item(), ("max", "max()", "time")),
    "padding_by_one": (lambda m, x: F.pad(x, (1, 1), value=1.0), ("pad", "pad()", "zeros")),
    "joined_batches": (lambda m, x: torch.cat([x, x]), ("cat", "cat()", "")),
    "steps_apart": (lambda m, x: torch.stack([x, x + 1]), ("stack", "stack()", "loop")),
    "reversed_time": (lambda m, x: x.unsqueeze(0).repeat(4, 1, 1, 1)[2:], ("getitem", "getitem()", "prefix")),
    "number_returned": (lambda m, x: x.shape[0], ("output", "output", "tensors")),
    "failing_code": (lambda m, x: x + [1, 2][5], ("the model", "Called", "")),
}


class Called(nn.Module):
    def __init__(self, code: Any) -> None:
        super().__init__()
        self.code = code

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    code, (where, kind, hint) = REFUSED[name]
    with pytest.raises(ImportRefused) as caught:
        trace(Called(code), torch.ones(2, 4, 6))
    problem = caught.value.problems[0]
    assert (problem.where, problem.kind) == (where, kind)
    assert hint in problem.hint
    assert "\n" not in str(problem)


LAYERS: dict[str, tuple[nn.Module, str]] = {
    "return_indices": (nn.MaxPool2d(2, return_indices=True), "return_indices"),
    "ceil_mode_that_counts": (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
    "norm_type": (nn.LPPool2d(2, 2), "norm_type"),
    "uneven_same": (nn.Conv2d(3, 3, 2, padding="same"), "padding"),
    "wrong_channels": (nn.Conv2d(4, 3, 2), ""),
    "wrong_rank": (nn.Conv1d(3, 3, 2), ""),
    "unknown_layer": (nn.Bilinear(2, 2, 2), ""),
}


@pytest.mark.parametrize("name", LAYERS)
def test_refused_layer(name: str) -> None:
    module, attribute = LAYERS[name]
    (problem,) = import_model(nn.Sequential(nn.Identity(), module), torch.ones(1, 3, 5, 5)).problems
    assert (problem.where, problem.kind, problem.attribute) == ("1", type(module).__name__, attribute)


def test_ceil_mode_that_changes_nothing_is_accepted() -> None:
    graph = trace(
        nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)), torch.ones(1, 3, 8, 8)
    )
    assert graph.outputs[0].type.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("example", "timesteps", "where"),
    [
        (torch.ones(2, 3, dtype=torch.int64), None, "example 0"),
        (torch.ones(0, 3), None, "example 0"),
        ([[1.0]], None, "example 0"),
        (torch.ones(2, 3).numpy(), None, "example 0"),
        ((), None, "example"),
        (torch.ones(2, 3), 0, "timesteps"),
        (torch.ones(2, 3), 2.5, "timesteps"),
    ],
)
def test_bad_arguments(example: Any, timesteps: Any, where: str) -> None:
    with pytest.raises(ImportRefused) as caught:
        trace(nn.Linear(3, 4), example, timesteps)
    assert [p.where for p in caught.value.problems] == [where]


def test_model_that_is_none() -> None:
    with pytest.raises(ImportRefused, match=r"a torch\.nn\.Module is needed, not function"):
        trace(lambda x: x, torch.ones(1, 2))  # type: ignore[arg-type]


def test_report() -> None:
    report = check(Faulty().eval(), torch.ones(1, 2, 8, 8))
    assert not report.ok
    assert "conv: Conv2d.padding_mode" in str(report)
    good = check(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), torch.ones(1, 2, 8, 8), name="small")
    (conv, flat) = json.loads(json.dumps(good.to_json()))["layers"]
    assert (conv["path"], conv["kind"], conv["op"], conv["parameters"]) == ("0", "Conv2d", "conv2d", 57)
    assert flat["shape"] == [108]
    assert str(good) == "small: can be imported"


def test_training_mode_is_noted_where_it_matters() -> None:
    with pytest.warns(UserWarning, match="imported as in eval"):
        trace(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), torch.ones(1, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3))


def test_other_precisions_are_noted() -> None:
    with pytest.warns(UserWarning, match="imported as float32"):
        graph = trace(nn.Linear(3, 3).double(), torch.ones(1, 3))
    assert all(t.dtype == torch.float32 for t in graph.tensors.values())


def test_forward_hooks_are_noted() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.warns(UserWarning, match="0: Linear: has forward hooks"):
        trace(model, torch.ones(1, 3))


def test_torch_wrappers_of_weights() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    graph = trace(model, torch.ones(1, 3))
    assert torch.equal(graph.tensors["0.weight"], model[0].weight)


# ---- SpikingJelly


@pytest.mark.spikingjelly
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("GatedLIFNode", {"T": 4}),
        ("PSN", {"T": 4}),
        ("MaskedPSN", {"k": 2, "T": 4}),
        ("SlidingPSN", {"k": 2}),
        ("KLIFNode", {}),
        ("QIFNode", {}),
    ],
)
def test_neuron_refused_by_name(name: str, arguments: dict[str, int]) -> None:
    model = nn.Sequential(nn.Linear(3, 3), getattr(neuron, name)(**arguments))
    (problem,) = import_model(model, torch.ones(4, 1, 3)).problems
    assert (problem.where, problem.kind) == ("1", name)
    assert problem.hint


@pytest.mark.spikingjelly
@pytest.mark.parametrize("name", ["TemporalEffectiveBatchNorm2d", "BatchNormThroughTime2d"])
def test_norm_refused_by_name(name: str) -> None:
    (problem,) = import_model(nn.Sequential(getattr(layer, name)(4, 2)), torch.ones(4, 1, 2, 5, 5)).problems
    assert (problem.where, problem.kind) == ("0", name)
    assert "BatchNorm" in problem.hint


@pytest.mark.spikingjelly
def test_neuron_with_its_own_equations_is_refused() -> None:
    class MyNode(neuron.IFNode):  # type: ignore[name-defined,misc]
        def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
            return (inputs[0],), states

    class Renamed(neuron.IFNode):  # type: ignore[name-defined,misc]
        pass

    (problem,) = import_model(nn.Sequential(MyNode()), torch.ones(1, 3), 4).problems
    assert (problem.where, problem.kind) == ("0", "MyNode")
    assert trace(nn.Sequential(Renamed()), torch.ones(1, 3), 4).of("neuron")


@pytest.mark.spikingjelly
def test_single_step_model_needs_timesteps() -> None:
    (problem,) = import_model(nn.Sequential(neuron.IFNode()), torch.ones(2, 3)).problems
    assert (problem.where, problem.attribute) == ("0", "step_mode")
    assert "timesteps" in problem.hint


@pytest.mark.spikingjelly
def test_one_membrane_at_two_places_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sn = neuron.IFNode(step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            return self.sn(self.sn(x))

    (problem,) = import_model(Twice(), torch.ones(4, 1, 3)).problems
    assert (problem.where, problem.kind) == ("sn#2", "IFNode")


@pytest.mark.spikingjelly
def test_state_of_an_earlier_run_is_noted() -> None:
    model = nn.Sequential(neuron.IFNode(step_mode="m"))
    model(torch.ones(4, 2, 3))
    with pytest.warns(UserWarning, match="0: IFNode.v: holds the state of an earlier run"):
        trace(model, torch.ones(4, 2, 3))
    functional.reset_net(model)
    assert not import_model(model, torch.ones(4, 2, 3)).notes


@pytest.mark.spikingjelly
def test_tracing_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(layer.SeqToANNContainer(nn.Linear(3, 3)), neuron.LIFNode(step_mode="m", store_v_seq=True))
    before = functional.seq_to_ann_forward, model[1].v
    trace(model, torch.ones(4, 2, 3))
    assert (functional.seq_to_ann_forward, model[1].v) == before


@pytest.mark.spikingjelly
def test_unknown_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ldsnn_compiler.frontend import spikingjelly_neurons

    monkeypatch.setattr(spikingjelly_neurons, "installed", lambda: "0.0.0.0.12")
    (problem,) = import_model(nn.Sequential(neuron.LIFNode()), torch.ones(1, 3), 4).problems
    assert "0.0.0.0.12" in problem.message


@pytest.mark.spikingjelly
def test_ambiguous_example() -> None:
    x = torch.ones(4, 2, 3)
    with pytest.raises(ImportRefused, match="sequence=True or sequence=False"):
        trace(neuron.IFNode(), x, 4)
    assert trace(neuron.IFNode(), x, 4, sequence=True).inputs[0].type.shape == (3,)
    assert trace(neuron.IFNode(), x, 4, sequence=False).inputs[0].type.shape == (2, 3)


@pytest.mark.spikingjelly
def test_neuron_attributes_refused() -> None:
    relaxed = neuron.IFNode(surrogate_function=surrogate.ATan(spiking=False))
    odd = neuron.LIFNode(surrogate_function=torch.sigmoid)
    uneven = neuron.IFNode()
    uneven.v_threshold = torch.tensor([1.0, 2.0, 3.0])
    started = neuron.LIFNode()
    started.set_reset_value("v", torch.zeros(3))
    problems = import_model(nn.Sequential(relaxed, odd, uneven, started), torch.ones(1, 3), 4).problems
    found = [(p.where, p.attribute) for p in problems]
    assert found == [("0", "surrogate_function"), ("1", "surrogate_function"), ("2", "v_threshold"), ("3", "v")]


@pytest.mark.spikingjelly
def test_membrane_starts_where_the_library_resets_it() -> None:
    node = neuron.IFNode(v_reset=None)
    node.set_reset_value("v", 0.375)
    (imported,) = trace(nn.Sequential(node), torch.ones(1, 3), 4).of("neuron")
    assert imported["neuron"].params["v_init"] == 0.375


# ---- front ends of others


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("not to be traced")


def _plugin() -> FrontEnd:
    def double(m: nn.Module, ctx: Any, x: Any) -> Any:
        return ctx.layer("scale", x, factor=2.0)

    return FrontEnd("doubling", modules={Doubling: double})


class _Entry:
    def __init__(self, load: Any) -> None:
        self.name, self.load = "doubling", load


def _with_entry(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    monkeypatch.setattr(registry, "entry_points", lambda group: [_Entry(load)] if group == registry.GROUP else [])
    monkeypatch.setattr(registry, "_load_plugins", registry._load_plugins.__wrapped__)


def test_front_end_of_a_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_entry(monkeypatch, lambda: _plugin)
    graph = trace(nn.Sequential(nn.Linear(3, 3), Doubling()), torch.ones(1, 3))
    assert graph.node("1")["factor"] == 2.0
    assert {e.group for e in metadata.entry_points(group=registry.GROUP)} <= {registry.GROUP}


def test_front_end_that_fails_to_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise ImportError("no module named lava")

    _with_entry(monkeypatch, load)
    with pytest.raises(LdsnnError, match=r"doubling: ldsnn_compiler\.frontends: ImportError: no module named lava"):
        trace(nn.Linear(3, 3), torch.ones(1, 3))


def test_front_ends_may_not_claim_the_same_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    registry.register(_plugin())
    with pytest.raises(LdsnnError, match="both import Doubling"):
        registry.register(FrontEnd("another", modules={Doubling: lambda *_: None}))
    with pytest.raises(LdsnnError, match="registered already"):
        registry.register(_plugin())


def test_every_importer_is_documented() -> None:
    tables = Tables(front_ends())
    assert all(i.__doc__ for part in tables.parts for i in part.modules.values())
