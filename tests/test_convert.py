"""ANN to SNN: every spelling of ReLU, residual networks, exact QCFS, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import Tensor, nn

from ldsnn_compiler.errors import ImportRefused
from ldsnn_compiler.frontend import convert
from ldsnn_compiler.frontend.bias import feeding
from ldsnn_compiler.frontend.qcfs import QCFS
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.verify import verify


def images(count: int = 64, seed: int = 0) -> Tensor:
    """Dyadic images ``[count, 2, 6, 6]`` in [-1, 1]."""
    return torch.randint(-16, 17, (count, 2, 6, 6), generator=torch.Generator().manual_seed(seed)) / 16


def dyadic(model: nn.Module) -> nn.Module:
    """The model with weights that are multiples of 1/8, so that sums are exact in any order."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p * 8).round() / 8)
    return model.eval()


def paths(graph: Graph) -> list[str]:
    """Where the neurons come from."""
    return [n.path for n in graph.of("neuron")]


def output(graph: Graph, x: Tensor) -> Tensor:
    """What the graph computes."""
    with torch.no_grad():
        result = Interpreter(graph)(x)
    assert isinstance(result, Tensor)
    return result


class Spellings(nn.Module):
    """One module called twice, and ReLU written in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.mix = nn.Conv2d(4, 4, 1)
        self.six = nn.ReLU6()
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        x = self.act(self.mix(x))
        x = F.relu(self.mix(x), inplace=True)
        x = torch.relu(self.mix(x))
        x = self.mix(x).relu()
        x = self.six(self.mix(x) * 8)
        x = F.relu6(self.mix(x))
        return self.out(F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1))


class Residual(nn.Module):
    """A block with BatchNorm and a parameter-free shortcut into twice the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv0(x)))
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.fc(self.pool(y).flatten(1))


def residual() -> nn.Module:
    """With BatchNorm statistics that are not trivial."""
    torch.manual_seed(1)
    model = Residual()
    for _ in range(20):
        model(torch.randn(32, 2, 6, 6))
    return model.eval()


def test_every_spelling_of_relu_is_found_under_its_path() -> None:
    torch.manual_seed(0)
    model = Spellings().eval()
    graph = convert(model, images(), 4, threshold="max")
    verify(graph)
    assert paths(graph) == ["act", "act#2", "relu", "relu#2", "relu#3", "six", "relu6"]
    cells = {n.path: n["neuron"] for n in graph.of("neuron")}
    assert all(c.params["v_init"] == c.params["threshold"] / 2 for c in cells.values())
    assert cells["six"].params["threshold"] <= 6.0
    source = graph.inputs[0]
    assert source["time"] == "static" and source.type.timesteps == 1 and source.type.dt == 4
    assert graph.outputs[0].type.timesteps == 1 and graph.base_timesteps == 4


@pytest.mark.parametrize("threshold", ["max", "percentile", "mse"])
def test_output_approaches_the_ann_as_timesteps_grow(threshold: str) -> None:
    model, x = residual(), torch.randn(200, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model(x)
    errors = []
    for timesteps in (4, 16, 64, 256):
        graph = convert(model, x, timesteps, threshold=threshold)
        verify(graph)
        errors.append(float((output(graph, x) - wanted).norm() / wanted.norm()))
    assert errors[0] > errors[1] > errors[2] > errors[3], errors
    assert errors[3] < 0.05, errors


def test_residual_paths_and_shortcut() -> None:
    graph = convert(residual(), images(), 8)
    assert paths(graph) == ["relu", "relu#2", "relu#3"]
    assert {"pad", "slice", "add", "adaptive_avg_pool"} <= {n.op.name for n in graph}


def test_shared_threshold_is_that_of_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.act(x) * 4)

    x = torch.linspace(-1, 1, 20)[:, None]
    graph = convert(Twice(), x, 4, threshold="max")
    assert [n["neuron"].params["threshold"] for n in graph.of("neuron")] == [1.0, 4.0]


@pytest.mark.parametrize("levels", [4, 8])
def test_qcfs_is_exact_at_one_timestep(levels: int) -> None:
    torch.manual_seed(0)
    model = dyadic(
        nn.Sequential(nn.Conv2d(2, 4, 3), QCFS(levels, 3.0), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 9),
                      QCFS(levels, 2.0), nn.Linear(9, 3))
    )  # fmt: skip
    x = images()
    graph = convert(model, x, 1)
    verify(graph)
    assert all(n.type.signal.levels == levels for n in graph.of("neuron"))
    with torch.no_grad():
        assert torch.equal(output(graph, x), model(x))


@pytest.mark.parametrize("threshold", [0.7, 3.0])
def test_one_qcfs_layer_in_as_many_binary_timesteps_as_levels_is_exact(threshold: float) -> None:
    model = nn.Sequential(QCFS(8, threshold)).eval()
    x = torch.arange(-64, 129)[:, None] / 32
    graph = convert(model, x, 8)
    (node,) = graph.of("neuron")
    assert node.type.signal.levels == 1
    with torch.no_grad():
        assert torch.allclose(output(graph, x), model(x), atol=1e-6)


def test_qcfs_takes_its_levels_and_learns() -> None:
    act = QCFS(4, 2.0)
    x = torch.tensor([-1.0, 0.2, 0.25, 0.8, 1.9, 5.0], requires_grad=True)
    y = act(x)
    assert y.tolist() == [0.0, 0.0, 0.5, 1.0, 2.0, 2.0]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert act.threshold.grad is not None and float(act.threshold.grad) != 0
    assert "levels=4" in repr(act)
    with pytest.raises(Exception, match="levels >= 1"):
        QCFS(0)


def test_everything_that_cannot_be_converted_is_named_at_once() -> None:
    class Modern(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act, self.smooth = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.b(self.smooth(self.a(self.act(x))))).tanh() + F.silu(x)

    with pytest.raises(ImportRefused) as caught:
        convert(Modern(), torch.randn(8, 4), 4)
    text = str(caught.value)
    assert all(part in text for part in ("smooth: GELU", "silu()", "sigmoid()", "tanh()", "ReLU6 and QCFS only"))
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timesteps": 0}, "timesteps: a positive whole number"),
        ({"threshold": "median"}, "threshold: is one of percentile, max, mse"),
        ({"percentile": 0.0}, "percentile: is above 0"),
        ({"calibration": torch.full((2, 2), torch.nan)}, "calibration: is empty or holds NaN"),
        ({"calibration": torch.zeros(2, 2, dtype=torch.int64)}, "calibration: a floating-point tensor"),
        ({"ann": "resnet"}, "the model: a torch.nn.Module is needed"),
        ({"ann": nn.Linear(2, 2)}, "has no ReLU"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], said: str) -> None:
    given = {"ann": nn.ReLU(), "calibration": torch.ones(2, 2), "timesteps": 2, **change}
    with pytest.raises(ImportRefused, match=said):
        convert(**given)  # type: ignore[arg-type]


def test_model_whose_import_computes_something_else_is_refused() -> None:
    class Overwritten(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1.0
            return F.relu(y, inplace=True) + y

    with pytest.raises(ImportRefused, match="computes something else"):
        convert(Overwritten(), torch.tensor([[-1.0, 2.0], [3.0, -4.0]]), 4)


@pytest.mark.spikingjelly
def test_spiking_model_is_sent_to_trace() -> None:
    from spikingjelly.activation_based import neuron

    with pytest.raises(ImportRefused) as caught:
        convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), neuron.IFNode()), torch.ones(2, 2), 4)
    assert "1" in [p.where for p in caught.value.problems] or "2" in [p.where for p in caught.value.problems]


def test_max_pool_of_spikes_is_warned_about_by_name() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.MaxPool2d(3)).eval()
    with pytest.warns(UserWarning, match=r"2: takes the largest value") as caught:
        convert(model, images(), 4)
    assert len(caught) == 1, "the first pool sees the image itself and is exact"


def test_silent_layer_is_warned_about_by_name() -> None:
    model = nn.Sequential(nn.ReLU(), nn.ReLU()).eval()
    with pytest.warns(UserWarning, match="no calibration sample activates it"):
        convert(model, -torch.ones(4, 2), 4)


def test_bias_correction_brings_outputs_nearer_to_the_ann() -> None:
    model, x = residual(), torch.randn(200, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model(x)
    plain, corrected = (convert(model, x, 16, threshold="max", bias=bias) for bias in (False, True))
    verify(corrected)
    errors = [float((output(graph, x[16:]) - wanted[16:]).norm()) for graph in (plain, corrected)]
    assert errors[1] < 0.95 * errors[0], errors


def test_bias_is_corrected_only_where_it_reaches_one_neuron_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 3), nn.Linear(3, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            return F.relu(self.two(F.relu(y))) + F.relu(y)

    graph = convert(Shared().eval(), torch.randn(16, 2), 4, bias=True)
    first, second, third = (feeding(graph, n) for n in graph.of("neuron"))
    assert first is None and second is not None and second.path == "two" and third is None
    assert {n.path: n["bias"] is not None for n in graph.of("linear")} == {"one": True, "two": True}
    assert "one.bias" in graph.tensors and "one.bias~2" not in graph.tensors


def test_conversion_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        convert(model, torch.randn(20, 4), 2)
    assert model.training and all(m.training for m in model)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


# ---- the pretrained ResNet-20


def example() -> ModuleType:
    """``examples/resnet20/model.py`` as a module."""
    spec = importlib.util.spec_from_file_location("resnet20_model", Path(ROOT) / "examples" / "resnet20" / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shared_data
def test_resnet20_keeps_its_accuracy() -> None:
    module = example()
    model, data = module.resnet20(), module.cifar10()
    x, y = (part[:50] for part in data["report"])
    graph = convert(model, data["calibration"][0][:50], 16)
    verify(graph)
    assert len(paths(graph)) == 19 and paths(graph)[:3] == ["relu", "layer1.0.relu1", "layer1.0.relu2"]
    with torch.no_grad():
        conventional = float((model(x).argmax(1) == y).float().mean())
    assert conventional >= 0.9
    found = torch.cat([output(graph, part) for part in x.split(10)]).argmax(1)
    assert float((found == y).float().mean()) >= 0.6, "measured 74 % of 1,000 at 16 timesteps"
