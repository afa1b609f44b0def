"""The benchmark networks and their script, on a few images; the whole runs are committed as result files."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT
from torch import nn

from ldsnn_compiler.bench.report import rewritten
from ldsnn_compiler.data import Data
from ldsnn_compiler.search.optimize import ORIGINAL, UNIFORM, Effort

FEW = Effort(samples=16, width=1, rounds=1, moves=0, recalibration=8)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_run", ROOT / "examples" / "benchmarks" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_macs_of_a_source_network(script: ModuleType) -> None:
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    x = torch.ones(4, 1, 4, 4)
    x[:, :, 0] = 0
    found = script.ann_figures(ann, x, torch.zeros(4, dtype=torch.long))
    assert found["macs"] == 4 * 9 * 2 + 8 * 3
    assert found["macs_nonzero"] <= (4 * 9 - 2 * 3) * 2 + 8 * 3


@pytest.mark.shared_data
def test_the_mnist_network_on_a_few_images(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def few(spec: str) -> Data:
        whole = real(spec)
        (a, b), (c, d) = whole.calibration, whole.report
        assert b is not None and d is not None
        return Data((a[:32], b[:32]), (c[:50], d[:50]), "a few")

    real = script.load_data
    monkeypatch.setattr(script, "load_data", few)
    monkeypatch.setenv("LDSNN_CACHE", str(tmp_path))
    benchmark = replace(script.BENCHMARKS["mnist_cnn"], timesteps=8, effort=FEW, budget=0.1, uneven=False)
    found = script.run(benchmark, "binary", None)
    found["latency"] = script.latencies(benchmark, found["schedules"], samples=2, repeats=2)
    result = json.loads(json.dumps(found))
    rows = {row["name"]: row for row in result["rows"]}
    assert rows[ORIGINAL]["accuracy"] == result["test"][ORIGINAL]["accuracy"] > 0.9 and result["ann"]["accuracy"] > 0.9
    assert rows["per layer, binary"]["synaptic_updates"] < rows[UNIFORM]["synaptic_updates"]
    assert result["latency"].keys() == result["schedules"].keys()
    assert all(each["measured_ms"] > 0 for each in result["latency"].values())
    shown = script.table({"mnist_cnn": result})
    assert len(shown.splitlines()) > len(rows) + 4 and "nan" not in shown


def test_committed_results_are_whole(script: ModuleType) -> None:
    for path in script.RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        assert {
            "machine",
            "date",
            "seconds",
            "rows",
            "figures",
            "test",
            "ann",
            "statement",
            "latency",
        } <= result.keys(), path.name
    text = (script.RESULTS / "README.md").read_text()
    every = {path.stem: json.loads(path.read_text()) for path in sorted(script.RESULTS.glob("*.json"))}
    assert rewritten(text, script.table(every)) == text, "run examples/benchmarks/run.py --table"
