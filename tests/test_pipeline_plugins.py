"""Plug-ins: installed ones by entry point, others from a file; whatever fails is an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from graphs import Net

from ldsnn_compiler.errors import LdsnnError
from ldsnn_compiler.pipeline import load_plugins, parse_pipeline, passes, plugins, run_pipeline
from ldsnn_compiler.pipeline.registry import _PASSES

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example plug-in (from a copy: pip builds inside the source folder)."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, source)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


SCRIPT = """
import json, torch
from ldsnn_compiler.pipeline import load_plugins, parse_pipeline, passes, run_pipeline
from ldsnn_compiler.ir.parser import parse_graph
from ldsnn_compiler.targets import board
load_plugins()
text = '''ldir 1
graph "n" base_timesteps=1 stage=traced
tensor @w float32[1, 2]
%x = input() : stream<1, 1, [2], float32, real>
%y = linear(%x) {weight=@w} : stream<1, 1, [1], float32, real>
%o = output(%y) : stream<1, 1, [1], float32, real>'''
graph = parse_graph(text, {"w": torch.tensor([[0.25, 1.0]])})
run_pipeline(graph, parse_pipeline("prune-weights{below=0.5},dead-code"))
print(json.dumps([passes()["prune-weights"].__module__, board("example-soc").cpu,
                  graph.tensors[graph.node("y")["weight"].name].tolist()]))
"""


def test_an_installed_plugin_brings_a_pass_and_a_board(site: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["ldsnn_example_plugin.prune_weights", "cortex-a55", [[0.0, 1.0]]]


def test_a_plugin_that_cannot_be_imported_is_an_error(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    (broken / "ldsnn_example_plugin" / "prune_weights.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(broken)
    monkeypatch.setattr(plugins, "_LOADED", set())
    with pytest.raises(LdsnnError) as caught:
        passes()
    sys.modules.pop("ldsnn_example_plugin", None)
    text = str(caught.value)
    assert "prune-weights = ldsnn_example_plugin.prune_weights:PruneWeights" in text
    assert "cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'" in text


def test_a_file_brings_a_pass() -> None:
    load_plugins([PLUGIN / "double_weights.py"])
    load_plugins([PLUGIN / "double_weights.py"])  # a second time is no clash
    try:
        net = Net(1)
        graph = net.output(net.linear(net.input((2,)), 2))
        before = graph.tensors["linear.weight"]
        run_pipeline(graph, parse_pipeline("double-weights{by=4.0},dead-code"))
        assert graph.tensors[graph.node("linear")["weight"].name].tolist() == (before * 4).tolist()
    finally:
        del _PASSES["double-weights"]


def test_all_files_that_fail_are_reported(tmp_path: Path) -> None:
    (tmp_path / "syntax.py").write_text("def (\n")
    clash = (PLUGIN / "double_weights.py").read_text().replace("double-weights", "canonicalize")
    (tmp_path / "clash.py").write_text(clash)
    with pytest.raises(LdsnnError) as caught:
        load_plugins([tmp_path / "syntax.py", tmp_path / "clash.py", tmp_path / "absent.py"])
    text = str(caught.value)
    assert "syntax.py: plug-in: cannot be imported: SyntaxError" in text
    assert "clash.py: plug-in: cannot be imported: LdsnnError" in text and "registered already" in text
    assert "absent.py: plug-in: not a Python file that can be read" in text


def _entries(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [e for e in entries if e.group == group])
    monkeypatch.setattr(plugins, "_LOADED", set())


def test_two_plugins_of_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "ldsnn_compiler.targets"
    _entries(monkeypatch, EntryPoint("soc", "json", group), EntryPoint("soc", "os", group))
    with pytest.raises(LdsnnError, match="plug-in 'soc' is installed 2 times, by json, os"):
        load_plugins()


def test_an_entry_point_has_the_name_of_its_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "ldsnn_compiler.passes.dead_code:DeadCode"
    _entries(monkeypatch, EntryPoint("another-name", value, "ldsnn_compiler.passes"))
    with pytest.raises(LdsnnError, match="the entry point 'another-name' names a pass called 'dead-code'"):
        passes()
