"""The Fashion-MNIST benchmark network: its committed weights, its training, and what may be retimed in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch import Tensor

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.schedule import neuron_layers
from ldsnn_compiler.search.options import space

pytestmark = pytest.mark.spikingjelly


@pytest.fixture(scope="module")
def fashion() -> ModuleType:
    path = ROOT / "examples" / "benchmarks" / "fashion_lif.py"
    spec = importlib.util.spec_from_file_location("fashion_lif", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Blobs on black, firing about as much as garments do."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 1, 7, 7, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear").sub(0.3).clamp(0, 1)


def test_the_committed_network_is_imported_as_it_is(fashion: ModuleType, images: Tensor) -> None:
    model = fashion.fashion_lif()
    graph = trace(model, images[:1])
    assert graph.base_timesteps == fashion.TIMESTEPS == 16
    assert list(neuron_layers(graph)) == ["sn1", "sn2", "sn3", "sn4"]
    fashion.functional.reset_net(model)
    with torch.no_grad():
        torch.testing.assert_close(Interpreter(graph)(images), model(images))


def test_every_layer_may_be_retimed_with_binary_spikes(fashion: ModuleType, images: Tensor) -> None:
    options = space(trace(fashion.fashion_lif(), images[:1]), "binary")
    assert not options.held
    for group in options.groups:
        assert {choice.layers[0].timesteps for choice in group.choices} == {16, 8, 4, 2, 1}


def test_training_computes_the_spikes_of_the_model(fashion: ModuleType, images: Tensor) -> None:
    net = fashion.fashion_lif()
    with torch.no_grad():
        scores, spikes = fashion.fast_forward(net, images, fashion.TIMESTEPS)
        torch.testing.assert_close(scores, net(images), atol=0.05, rtol=0)
    assert all(0 < float(each.mean()) < 1 for each in spikes)
    assert fashion.differing_spikes(net, images) < 1e-4


@pytest.mark.parametrize("held", [False, True])
def test_gradients_are_those_of_spikingjelly(fashion: ModuleType, held: bool) -> None:
    steps, (given, weights) = 6, torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    given = (given[:1] if held else given).requires_grad_()
    node = fashion.make_lif()
    node.detach_reset = True
    theirs = node(given.expand(steps, -1, -1))
    ours = fashion.Lif.apply(given, steps)
    assert torch.equal(ours, theirs) and 0 < float(ours.detach().mean()) < 1
    (expected,) = torch.autograd.grad((theirs * weights).sum(), given)
    (found,) = torch.autograd.grad((ours * weights).sum(), given)
    torch.testing.assert_close(found, expected)


def test_the_script_trains_and_writes_weights(
    fashion: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 160).astype(np.uint8)
    pictures = (rng.integers(0, 60, (160, 28, 28)) + 180 * labels[:, None, None]).astype(np.uint8)
    monkeypatch.setattr(fashion, "_arrays", lambda: (pictures, labels, pictures[:32], labels[:32]))
    monkeypatch.setattr(fashion, "CALIBRATION_IMAGES", 32)
    out = tmp_path / "weights.safetensors"
    monkeypatch.setattr(sys, "argv", ["fashion_lif.py", "--plan", "2x1,4x1", "--batch", "16", "--out", str(out)])
    fashion.main()
    assert load_file(out).keys() == load_file(fashion.WEIGHTS).keys()
    assert "epoch 2, T=4" in capsys.readouterr().out
    trained = fashion.FashionNet()
    trained.load_state_dict(load_file(out))
    torch.manual_seed(0)
    x, y = fashion.training_images()
    cross_entropy = torch.nn.functional.cross_entropy
    with torch.no_grad():
        before, after = (
            float(cross_entropy(fashion.fast_forward(net.eval(), x, 4)[0], y))
            for net in (fashion.FashionNet(), trained)
        )
    assert after < before


@pytest.mark.shared_data
def test_the_committed_weights_classify(fashion: ModuleType) -> None:
    splits = fashion.fashion()
    assert [len(y) for _, y in splits.values()] == [5000, 10000] and len(fashion.training_images()[0]) == 55000
    x, y = splits["report"]
    assert fashion.accuracy(fashion.fashion_lif(), x[:300], y[:300]) > 0.86
