"""The spoken-digit benchmark: its data, its hand-written gradient, and what the committed weights do when retimed."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT

from ldsnn_compiler.frontend import trace
from ldsnn_compiler.interp.work import count_work
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.schedule import LayerSchedule, Schedule, neuron_layers
from ldsnn_compiler.search.cost import totals
from ldsnn_compiler.search.evaluate import Evaluator

pytestmark = pytest.mark.spikingjelly
FILE = ROOT / "examples" / "benchmarks" / "fsdd_lif.py"


@pytest.fixture(scope="module")
def fsdd() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_fsdd", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def graph(fsdd: ModuleType) -> Graph:
    return trace(fsdd.fsdd_lif(), torch.zeros(fsdd.FRAMES, 1, fsdd.BANDS), sequence=True)


def test_the_hand_written_scan_is_spikingjellys_neuron(fsdd: ModuleType) -> None:
    currents = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(1)) + 0.3
    weights = torch.randn(12, 3, 5, generator=torch.Generator().manual_seed(2))
    spikes, gradients = [], []
    for neurons in (fsdd.lif(4.0), fsdd.FastLif(4.0)):
        x = currents.clone().requires_grad_()
        spikes.append(neurons(x))
        (spikes[-1] * weights).sum().backward()
        gradients.append(x.grad)
    assert 0 < float(spikes[0].detach().mean()) < 1
    assert torch.equal(spikes[0], spikes[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_recordings_of_any_length_are_placed(fsdd: ModuleType) -> None:
    for frames in (12, 59, 60, 61, 226):
        x = np.arange(1, frames + 1, dtype=np.float32)[:, None] * np.ones((1, fsdd.BANDS), np.float32)
        for where in (0.0, 0.5, 1.0):
            found = fsdd.placed(x, where)
            assert found.shape == (fsdd.FRAMES, fsdd.BANDS)
            kept = found[found[:, 0] > 0, 0]
            assert len(kept) == min(frames, fsdd.FRAMES) and (np.diff(kept) == 1).all()


def test_variants_of_a_recording_stay_in_range(fsdd: ModuleType) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(size=(40, fsdd.BANDS)).astype(np.float32)
    for _ in range(20):
        found = fsdd.augmented(x, random)
        assert found.shape == (fsdd.FRAMES, fsdd.BANDS) and found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1.05


def test_the_committed_network_traces_with_its_own_time(fsdd: ModuleType, graph: Graph) -> None:
    assert graph.base_timesteps == fsdd.FRAMES and graph.inputs[0]["time"] != "static"
    assert [n["neuron"].template for n in neuron_layers(graph).values()] == ["lif"] * 3
    x = torch.rand(fsdd.FRAMES, 2, fsdd.BANDS, generator=torch.Generator().manual_seed(3))
    outputs, _ = count_work(graph, x)
    with torch.no_grad():
        torch.testing.assert_close(outputs[0].mean(0), fsdd.fsdd_lif()(x), atol=1e-4, rtol=1e-4)


@pytest.mark.shared_data
def test_no_recording_is_in_two_splits(fsdd: ModuleType) -> None:
    data = fsdd.fsdd()
    assert {name: len(x) for name, (x, _) in data.items()} == {"calibration": 1080, "report": 720}
    for x, labels in data.values():
        assert x.shape[1:] == (fsdd.FRAMES, fsdd.BANDS) and x.dtype == torch.float32 and len(labels) == len(x)
        assert (torch.bincount(labels) == len(x) // 10).all()
    splits = (fsdd.TEST, fsdd.UNSEEN, fsdd.CALIBRATION, fsdd.TRAINING)
    assert sorted(n for split in splits for n in split) == list(range(50))


@pytest.mark.shared_data
def test_coarser_time_saves_work_and_keeps_the_answers(fsdd: ModuleType, graph: Graph) -> None:
    x, labels = (part[:300] for part in fsdd.fsdd()["report"])
    evaluator = Evaluator(graph, x, counted=30)
    original = evaluator.reference
    assert sum(a == b for a, b in zip(original.predictions, labels.tolist(), strict=True)) >= 0.95 * len(x)

    def at(timesteps: int, method: str) -> Schedule:
        layer = LayerSchedule(timesteps, 1, method)
        return Schedule(fsdd.FRAMES, dict.fromkeys(neuron_layers(graph), layer))

    whole, third = evaluator.evaluate(at(60, "micro")), evaluator.evaluate(at(20, "oneshot"))
    assert whole.predictions == original.predictions
    assert sum(a == b for a, b in zip(third.predictions, whole.predictions, strict=True)) >= 0.97 * len(x)
    before, after = totals(whole.nodes), totals(third.nodes)
    assert before["synaptic_updates"] > 2 * after["synaptic_updates"]
    assert before["neurons_evaluated"] == 3 * after["neurons_evaluated"]
