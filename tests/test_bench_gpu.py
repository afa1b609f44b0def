"""The GPU benchmark as far as it goes without one: what is prepared runs (emulated) and gives the expected scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ldsnn_compiler.bench.gpu import folder as folders
from ldsnn_compiler.bench.gpu import measure, rows
from ldsnn_compiler.bench.gpu.__main__ import main
from ldsnn_compiler.bench.gpu.prepare import prepare
from ldsnn_compiler.bench.gpu.table import markdown
from ldsnn_compiler.cli.app import app
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cuda.emulate import emulated


@pytest.mark.slow
def test_what_is_prepared_runs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, emulated(board("h100")), "mlp", timesteps=4, density=0.2, batches=(1, 3))
    folder = folders.read(tmp_path)
    network = folders.network_of(folder)
    assert [s.shape for s in network.spikes] == [(4, 1, 128)] * 2
    names = {"ldsnn_event", "ldsnn_dense", "ldsnn_int", "ldsnn_int_dense", "ldsnn_schedule"}
    assert {row.name for row in rows.ours(folder)} == names
    assert all(e.probed or (e.limits and min(e.limits.values()) > 0) for e in folder.entries)
    assert measure.shares({"a": 1.0, "b": 1.0}, {"a": 4.0}) == {"a": 0.25}
    for row in rows.ours(folder):
        for batch in (1, 3):
            assert row.expected is not None
            assert torch.equal(row.make(batch)().reshape(batch, -1), row.expected.reshape(1, -1).expand(batch, -1))
    found = measure._spikes(folder, network)
    assert all(each["spikes"] > 0 and each["differing"] == 0 for each in found.values())
    monkeypatch.setattr(rows, "DEVICE", "cpu")
    for row in rows.theirs(network):
        if row.name in ("spikingjelly", "torch"):
            assert row.expected is not None
            with torch.inference_mode():
                assert torch.equal(row.make(2)(), row.expected.expand(2, -1))


def test_without_a_device_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LdsnnError, match="no CUDA device"):
        measure.run(tmp_path)
    assert main(["run", str(tmp_path), "-o", str(tmp_path / "out.json")]) == 1
    done = CliRunner().invoke(app, ["bench", "mlp", "--target", "h100"])
    assert done.exit_code != 0


def test_the_table_is_made_from_a_result(tmp_path: Path) -> None:
    data = {
        "model": "mlp", "device": "a GPU", "date": "2026-01-01", "versions": {"torch": "2"},
        "settings": {"timesteps": 8, "density": 0.1},
        "rows": [
            {"name": "ldsnn_event, batch 1", "latency_ms": 0.5},
            {"name": "ldsnn_event, batch 16", "latency_ms": 2.0},
            {"name": "spikingjelly, batch 1", "latency_ms": 3.0},
        ],
        "speedup": {"1": measure.speedups({("ldsnn_event", 1): 0.5, ("spikingjelly", 1): 3.0}, 1), "16": {}},
        "limit_shares": {"ldsnn_event, batch 1": {"event_scan_kernel": 0.25}},
        "spikes": {"ldsnn_event": {"spikes": 10, "differing": 0}},
        "identical_scores": {"ldsnn_event, batch 1": False}, "left_out": {"torch, batch 1": "no reason"},
    }  # fmt: skip
    text = markdown(data)
    assert "| ldsnn_event | 0.5 | 2 | 6.00x |  |" in text and "| spikingjelly | 3 |  | 1.00x |  |" in text
    assert "ldsnn_event, batch 1." in text and "no reason" in text and "a GPU" in text
    assert "`event_scan_kernel` 25%" in text


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / folders.INDEX).write_text("{}")
    with pytest.raises(LdsnnError, match="not what prepare writes"):
        folders.read(tmp_path)
