"""The demo network and its data: the splits are disjoint and balanced, the committed weights do what they did."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT

from ldsnn_compiler.demo.data import digits_data, digits_splits

pytestmark = pytest.mark.spikingjelly


def training_script() -> ModuleType:
    """``examples/digits/train.py`` as a module."""
    spec = importlib.util.spec_from_file_location("digits_train", ROOT / "examples" / "digits" / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(timesteps: int) -> float:
    """Accuracy on the report split at uniform ``timesteps``."""
    from ldsnn_compiler.demo.model import digits_model

    x, y = digits_data()["report"]
    with torch.no_grad():
        return float((digits_model(timesteps)(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def test_splits_cover_the_data_set_once_and_evenly() -> None:
    from sklearn.datasets import load_digits

    splits = digits_splits()
    whole = sorted(image.tobytes() for image in load_digits().images.astype(np.float32) / 16)
    assert sorted(image.tobytes() for x, _ in splits.values() for image in x) == whole
    for x, y in splits.values():
        assert x.dtype == np.float32 and y.dtype == np.int64 and x.shape == (len(y), 1, 8, 8)
        counts = np.bincount(y, minlength=10)
        assert counts.max() - counts.min() <= 6


def test_no_report_image_occurs_in_another_split() -> None:
    splits = digits_splits()
    report = {image.tobytes() for image in splits["report"][0]}
    assert len(splits["report"][1]) >= 500
    assert report.isdisjoint(image.tobytes() for name in ("train", "calibration") for image in splits[name][0])


def test_data_offers_only_what_was_not_trained_on() -> None:
    assert set(digits_data()) == {"calibration", "report"}


@pytest.mark.parametrize("timesteps", [16, 8, 4])
def test_committed_weights_reach_their_accuracy(timesteps: int) -> None:
    assert scores(timesteps) >= 0.985


def test_the_network_needs_its_timesteps() -> None:
    assert scores(1) < 0.5


def test_model_repeats_the_image_and_averages_over_time() -> None:
    from spikingjelly.activation_based import functional, neuron

    from ldsnn_compiler.demo.model import digits_model

    model = digits_model()
    x = torch.from_numpy(digits_data()["calibration"][0][:3])
    first = model(x)
    functional.reset_net(model)
    assert first.shape == (3, 10)
    assert not model.training
    assert torch.equal(first, model(x))
    assert {type(m) for m in model.modules() if isinstance(m, neuron.BaseNode)} == {neuron.IFNode, neuron.LIFNode}


def test_training_lowers_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    from ldsnn_compiler.demo.model import DigitsNet

    script = training_script()
    torch.manual_seed(0)
    net, splits = DigitsNet(), digits_splits()
    small = {"train": tuple(part[:256] for part in splits["train"]), "calibration": splits["calibration"]}
    untrained = script.accuracy(net, small["calibration"], 4)
    script.train(net, small, epochs=10, batch=64, rate_penalty=0.0)
    assert script.accuracy(net, small["calibration"], 4) > max(0.5, untrained)
    assert "epoch 10" in capsys.readouterr().out


def test_uniform_timesteps_in_training_is_the_plain_forward() -> None:
    from spikingjelly.activation_based import functional

    from ldsnn_compiler.demo.model import digits_model

    script, model = training_script(), digits_model()
    x = torch.from_numpy(digits_data()["calibration"][0][:16])
    with torch.no_grad():
        plain = model(x)
        functional.reset_net(model)
        per_layer, rate = script.forward_per_layer(model, x, [16, 16, 16])
    assert torch.allclose(plain, per_layer, atol=1e-5)
    assert 0 < float(rate) < 0.2
