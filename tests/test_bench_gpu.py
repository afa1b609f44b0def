"""The GPU benchmark as far as it goes without one: what is prepared runs (emulated) and gives the expected scores."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import SPIKING, Net
from typer.testing import CliRunner

from ldsnn_compiler.bench.gpu import folder as folders
from ldsnn_compiler.bench.gpu import measure, rows
from ldsnn_compiler.bench.gpu.__main__ import main
from ldsnn_compiler.bench.gpu.cases import built, read_schedules, searched
from ldsnn_compiler.bench.gpu.folder import Entry, Folder
from ldsnn_compiler.bench.gpu.layers import Layers, Loop, SpikingJelly, fires
from ldsnn_compiler.bench.gpu.machine import Rehearsal
from ldsnn_compiler.bench.gpu.prepare import prepare
from ldsnn_compiler.bench.gpu.table import markdown
from ldsnn_compiler.cli.app import app
from ldsnn_compiler.cli.models import ModelOptions, open_graph, open_module
from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.interp.module import Interpreter
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
    prepare(path, built("mlp", 4, 0.2), emulated(board("h100")), (3,))
    return path


NETWORK = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(180, 30), nn.ReLU(), nn.Linear(30, 4)).eval()

def data():
    torch.manual_seed(1)
    return {k: (torch.rand(5, 2, 6, 6), torch.arange(5) % 4) for k in ("calibration", "report")}
"""
SCHEDULES = {
    "uniform T0": {"timesteps": 8},
    "binary": {"timesteps": 4, "input_timesteps": 2},
    "graded": {"timesteps": 1, "levels": 8},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a converted network's source and the result file of a search."""
    path = tmp_path_factory.mktemp("network")
    (path / "net.py").write_text(NETWORK)
    rows_ = {row: {layer: each for layer in ("2", "6")} for row, each in SCHEDULES.items()}
    (path / "found.json").write_text(json.dumps({"schedules": rows_}))
    (path / "one.json").write_text(json.dumps({"schedules": {"binary": rows_["binary"]}}))
    return path


def arguments(network: Path, results: str) -> list[str]:
    """Of ``prepare``, for that network and the result file of that name."""
    options = {"schedules": results, "model": "net.py:net", "data": "net.py:data"}
    given = [word for key, value in options.items() for word in (f"--{key}", str(network / value))]
    return [*given, "--convert", "--timesteps", "8"]


@pytest.mark.slow
def test_what_is_prepared_says_what_to_expect(prepared: Path) -> None:
    folder = folders.read(prepared)
    (event, dense) = (entry for entry in folder.entries if entry.probed)
    assert [folder.arrays[key].shape for key in event.spikes] == [(4, 1, 128)] * 2 and event.spikes == dense.spikes
    assert folders.network_of(folder).timesteps == 4 and event.units == [1.0, 1.0]
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


@pytest.mark.slow
def test_a_searched_network_is_measured_under_its_schedules(network: Path, tmp_path: Path) -> None:
    """Emulated, whole numbers give the interpreter's scores; PyTorch's and SpikingJelly's rows are the converted
    network's, with all its timesteps."""
    options = ModelOptions(str(network / "net.py:net"), 8, True, str(network / "net.py:data"))
    case = searched(options, network / "found.json", images=3)
    prepare(tmp_path, case, emulated(board("h100")), (4,))
    report = measure.run(tmp_path, repeats=1, machine=Rehearsal()).to_json()
    by_name = {row["name"]: row for row in report["rows"]}
    assert {f"{row}, {kind}, batch 4" for row in SCHEDULES for kind in ("fp32", "int")} <= set(by_name)
    assert all(report["identical_scores"][f"{row}, int, batch 4"] for row in SCHEDULES)
    assert by_name["binary, fp32, batch 4"]["timesteps"] == {"2": 4, "6": 4}
    assert set(report["spikes"]) == {f"{row}, fp32" for row in SCHEDULES}
    assert all(each["spikes"] > 0 for each in report["spikes"].values())
    for name, found in report["scores"].items():
        assert found["samples"] == 4 and found["largest_difference"] < 0.1, name
        assert found["same_class"] == 4 and 0 <= found["right"] <= 4, name
    assert "torch, batch 4" in by_name and by_name["torch, batch 4"]["timesteps"] == {"2": 8, "6": 8}
    assert "schedules of found.json" in markdown(report)


def test_the_network_of_other_rows_is_the_converted_one(network: Path) -> None:
    """All timesteps of a layer at once, with SpikingJelly's neurons or a loop over them, or without time at all."""
    options = ModelOptions(str(network / "net.py:net"), 8, True, str(network / "net.py:data"))
    graph = open_graph(options)
    x = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    folder = Folder("h100", "net", {})
    folders.keep_graph(folder, graph)
    kept = folders.graph_in(folder)
    assert kept is not None and list(fires(kept)) == [node.name for node in graph.of("neuron")]
    with torch.no_grad():
        wanted = Interpreter(graph)(x)
        assert torch.allclose(Layers(kept, Loop)(x), wanted, atol=1e-5)
        twin = Layers(kept, lambda each: torch.nn.ReLU(), in_time=False)(x)
        module = open_module(options)[0]
        assert torch.allclose(twin, module(x), atol=1e-4)


@pytest.mark.spikingjelly
def test_spikingjelly_runs_the_converted_network_again_and_again(network: Path) -> None:
    from spikingjelly.activation_based.functional import reset_net

    graph = open_graph(ModelOptions(str(network / "net.py:net"), 8, True, str(network / "net.py:data")))
    x = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    jelly = Layers(graph, SpikingJelly)
    with torch.no_grad():
        wanted = Interpreter(graph)(x)
        for _ in range(2):
            reset_net(jelly)
            assert torch.allclose(jelly(x), wanted, atol=1e-5)


def test_neurons_that_others_lack_are_named() -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 3), SPIKING[3])
    graph = net.output(net.recurrent(net.linear(net.op("flatten", x), 5)))
    with pytest.raises(LdsnnError, match="soft reset") as caught:
        fires(graph)
    assert len(caught.value.problems) == 2


def test_schedules_that_do_not_fit_are_all_told(network: Path, tmp_path: Path) -> None:
    graph = open_graph(ModelOptions(str(network / "net.py:net"), 8, True, str(network / "net.py:data")))
    rows_ = {"a": {"2": {"timesteps": 0}}, "b": {"2": {"timesteps": 8}}, "c": {x: {"timesteps": 9} for x in "26"}}
    (tmp_path / "bad.json").write_text(json.dumps({"schedules": rows_}))
    with pytest.raises(LdsnnError) as caught:
        read_schedules(tmp_path / "bad.json", graph)
    assert len(caught.value.problems) == 4
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(LdsnnError, match="no schedules"):
        read_schedules(tmp_path / "none.json", graph)
    assert main(["prepare", str(tmp_path / "out"), "--schedules", str(tmp_path / "bad.json")]) == 1


@pytest.mark.slow
@pytest.mark.cuda_compiler
def test_a_searched_network_is_prepared_by_one_command(network: Path, tmp_path: Path) -> None:
    line = ["prepare", str(tmp_path), *arguments(network, "one.json"), "--batches", "2", "--images", "2"]
    assert main(line) == 0
    folder = folders.read(tmp_path)
    assert len(folder.libraries) == 3 and folder.settings["schedules"] == "one.json"
    assert all(images(content) == [(2, 86), (2, 89), (2, 90), (1, 86)] for content in folder.libraries.values())


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
    prepare(tmp_path, built("mlp", 4, 0.2), "h100", (16,))
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
    monkeypatch.setattr(measure, "theirs", lambda folder, device: [rows.GpuRow("other", broken, {})])
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
    folder = Folder("h100", "mlp", {}, libraries={"lib.so": b"code"})
    folder.entries.append(Entry("a", 1, "lib.so", {}, {}, {}, folder.keep(np.zeros(3))))
    folder.write(tmp_path)
    assert folders.read(tmp_path).libraries == folder.libraries
    (tmp_path / "lib.so.gz").write_bytes(b"cod")
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
