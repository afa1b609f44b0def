"""The GPU benchmark as far as it goes without one: what is prepared runs (emulated) and gives the expected scores."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ldsnn_compiler.bench.gpu import folder as folders
from ldsnn_compiler.bench.gpu import measure, rows
from ldsnn_compiler.bench.gpu.__main__ import main
from ldsnn_compiler.bench.gpu.folder import Entry, Folder
from ldsnn_compiler.bench.gpu.machine import Rehearsal
from ldsnn_compiler.bench.gpu.prepare import prepare
from ldsnn_compiler.bench.gpu.table import markdown
from ldsnn_compiler.cli.app import app
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.targets.boards import board
from ldsnn_compiler.targets.cuda.emulate import emulated

#: what a machine with PyTorch and TVM's run time need not have, beside the compiler in TVM's library
ABSENT = ("typer", "rich", "spikingjelly", "snntorch")
RUN_ELSEWHERE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {ABSENT}:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
from ldsnn_compiler.bench.gpu.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for a board whose GPU is emulated."""
    path = tmp_path_factory.mktemp("prepared")
    prepare(path, emulated(board("h100")), "mlp", timesteps=4, density=0.2, batches=(3,))
    return path


@pytest.mark.slow
def test_what_is_prepared_says_what_to_expect(prepared: Path) -> None:
    folder = folders.read(prepared)
    network = folders.network_of(folder)
    assert [s.shape for s in network.spikes] == [(4, 1, 128)] * 2
    names = {"ldsnn_event", "ldsnn_dense", "ldsnn_int", "ldsnn_int_dense", "ldsnn_schedule"}
    assert {row.name for row in rows.ours(folder)} == names and folder.batches == [3]
    assert all(e.probed or (e.limits and min(e.limits.values()) > 0) for e in folder.entries)
    assert measure.shares({"a": 1.0, "b": 1.0}, {"a": 4.0}) == {"a": 0.25}


@pytest.mark.slow
def test_a_rehearsal_does_all_that_needs_no_gpu(prepared: Path) -> None:
    report = measure.run(prepared, repeats=2, machine=Rehearsal()).to_json()
    ours = {f"{row.name}, batch 3" for row in rows.ours(folders.read(prepared))}
    theirs = {"spikingjelly, batch 3", "torch, batch 3"}
    measured = {row["name"] for row in report["rows"]}
    assert ours <= measured and measured <= ours | theirs
    assert set(report["identical_scores"]) == measured and all(report["identical_scores"].values())
    assert len(report["spikes"]) == 2 and report["libraries"] == {"prepared": 7, "loaded": 7}
    assert all(each["spikes"] > 0 and each["differing"] == 0 for each in report["spikes"].values())
    assert report["left_out"]["torch_graph, batch 3"] == "needs a GPU"
    assert "rehearsal" in markdown(report)


def images(library: bytes) -> list[tuple[int, int]]:
    """(kind, architecture) of all that a fat binary holds; kind 1 is PTX, 2 machine code."""
    start = library.index(b"\x50\xed\x55\xba")
    at, size = (start + n for n in struct.unpack_from("<HQ", library, start + 6))
    found, end = [], at + size - start
    while at < end:
        kind, header, length = struct.unpack_from("<HxxIQ", library, at)
        found.append((kind, *struct.unpack_from("<I", library, at + 28)))
        at += header + length
    return found


@pytest.mark.slow
@pytest.mark.cuda_compiler
def test_what_is_prepared_for_a_gpu_loads_without_one(tmp_path: Path) -> None:
    prepare(tmp_path, "h100", "mlp", timesteps=4, density=0.2, batches=(16,))
    report = measure.run(tmp_path, repeats=1, machine=Rehearsal()).to_json()
    assert report["libraries"] == {"prepared": 7, "loaded": 7}
    assert report["left_out"]["ldsnn_event, batch 16"] == "needs a GPU"
    for content in folders.read(tmp_path).libraries.values():
        assert images(content) == [(2, 86), (2, 89), (2, 90), (1, 86)]


@pytest.mark.slow
def test_what_fails_on_a_device_is_told(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> dict[str, float]:
        raise RuntimeError("no trace\nof anything")

    monkeypatch.setattr(Rehearsal, "kernels", broken)
    monkeypatch.setattr(measure, "light", broken)
    monkeypatch.setattr(measure, "theirs", lambda network, device: [rows.GpuRow("other", broken, {})])
    report = measure.run(prepared, repeats=1, machine=Rehearsal()).to_json()
    for name in ("spikes of ldsnn_event", "kernels of ldsnn_int, batch 3", "other, batch 3"):
        assert report["left_out"][name] == "RuntimeError: no trace"
    assert report["spikes"] == {} and len(report["rows"]) == 5


@pytest.mark.slow
def test_pytorch_and_the_run_time_are_enough(prepared: Path, tmp_path: Path) -> None:
    result, document = tmp_path / "result.json", tmp_path / "page.md"
    document.write_text("<!-- results: begin -->\nnone\n<!-- results: end -->\n")
    for line in (
        ["run", str(prepared), "--rehearse", "--repeats", "1", "-o", str(result)],
        ["table", str(result), str(document)],
    ):
        environment = {**os.environ, "TVM_USE_RUNTIME_LIB": "1"}
        done = subprocess.run(
            [sys.executable, "-c", RUN_ELSEWHERE, *line], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "| ldsnn_event |" in document.read_text() and "All scores are as expected." in document.read_text()
    assert "spikingjelly, batch 3 (" in document.read_text(), "what is not installed is told"


def test_a_folder_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    folder = Folder("h100", "mlp", 4, 0.2, libraries={"lib.so": b"code"})
    folder.entries.append(Entry("a", 1, "lib.so", {}, {}, {}, folder.keep(np.zeros(3))))
    folder.write(tmp_path)
    assert folders.read(tmp_path).libraries == folder.libraries
    (tmp_path / "lib.so").write_bytes(b"cod")
    np.savez(tmp_path / folders.ARRAYS, **{next(iter(folder.arrays)): np.ones(3)})
    with pytest.raises(LdsnnError, match="not what was prepared") as caught:
        folders.read(tmp_path)
    assert len(caught.value.problems) == 2


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
