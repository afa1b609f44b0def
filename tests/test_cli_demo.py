"""The demo: its rows, its files, and that what is kept beside it is what the model and the search give."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.demo.data import digits_data
from ldsnn_compiler.demo.run import GRAPH, SCHEDULE, WEIGHTS, digits_graph
from ldsnn_compiler.interp.module import Interpreter
from ldsnn_compiler.ir.store import read_graph
from ldsnn_compiler.ir.text import graph_text
from ldsnn_compiler.ir.verify import verify
from ldsnn_compiler.pipeline import parse_pipeline, run_pipeline
from ldsnn_compiler.runtime import load
from ldsnn_compiler.schedule import Schedule


@pytest.mark.spikingjelly
def test_kept_graph_is_the_traced_model() -> None:
    assert GRAPH.read_text() == graph_text(digits_graph())


def test_kept_graph_and_schedule_fit() -> None:
    graph = read_graph(GRAPH, WEIGHTS)
    verify(graph)
    schedule = Schedule.read(SCHEDULE)
    schedule.check(graph)
    assert sum(layer.timesteps for layer in schedule.layers.values()) < graph.base_timesteps * len(schedule.layers)


def test_demo_without_spikingjelly_reads_the_kept_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ldsnn_compiler.demo.run.find_spec", lambda name: None)
    assert graph_text(digits_graph()) == GRAPH.read_text()


@pytest.mark.spikingjelly
def test_demo_prints_four_rows_and_leaves_bundle_and_dumps(tmp_path: Path) -> None:
    arguments = ["demo", "-o", str(tmp_path), "--limit", "60", "--repeats", "2", "--threads", "1"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    eager, naive, optimised, scheduled = found["rows"]
    assert [r["name"].split(" ")[0] for r in found["rows"]] == ["PyTorch", "naive", "exactly", "per-layer"]
    assert eager["accuracy"] == naive["accuracy"] == optimised["accuracy"] and naive["agreement"] == 1
    assert scheduled["accuracy"] >= eager["accuracy"] - 0.05
    assert naive["synaptic_updates"] == pytest.approx(eager["synaptic_updates"], rel=1e-4)
    assert optimised["synaptic_updates"] < naive["synaptic_updates"]
    assert scheduled["synaptic_updates"] < optimised["synaptic_updates"] / 2
    assert scheduled["neurons_evaluated"] < optimised["neurons_evaluated"] / 2
    assert all(row["latency_ms"] > 0 and row["accuracy_ci95"][0] < row["accuracy"] for row in found["rows"])
    x = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    compiled = load(found["bundle"])
    with torch.no_grad():
        assert torch.allclose(compiled(x), Interpreter(compiled.graph)(x), atol=1e-4)
    assert len(list(Path(found["dumps"]).iterdir())) > 8


@pytest.mark.spikingjelly
def test_kept_schedule_loses_nothing_on_the_calibration_split() -> None:
    """What ``examples/digits/schedule.py`` promises of its choice, on a part of the split."""
    script = _script("schedule")
    x, y = (torch.from_numpy(part[:100]) for part in digits_data()["calibration"])
    folded = digits_graph()
    run_pipeline(folded, parse_pipeline(script.BEFORE))
    uniform = script.try_schedule(folded, script.with_timesteps(folded, (16, 16, 16)), x, y)
    chosen = script.try_schedule(folded, Schedule.read(SCHEDULE), x, y)
    worse = script.try_schedule(folded, script.with_timesteps(folded, (1, 1, 1)), x, y)
    assert chosen.accuracy >= uniform.accuracy - 0.01 and chosen.work < uniform.work / 3
    kept = script.frontier([uniform, chosen, worse])
    assert kept[0] is worse and kept[1] is chosen


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"digits_{name}", ROOT / "examples" / "digits" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
